"""transformers' own generation, from a Hugging Face directory."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Writer


def build(job: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Return what writes, and what is known of the model."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
    kind: Any = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(
        job["copy"], dtype=dtype, local_files_only=True, trust_remote_code=False
    ).eval()
    model.generation_config.eos_token_id = None

    def write(prompts: list[list[int]], new_tokens: int) -> list[int]:
        given = torch.tensor(prompts)
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        found: list[int] = made[0, given.shape[1] :].tolist()
        return found

    size = sum(each.numel() * each.element_size() for each in model.parameters())
    return write, {"weight_bytes": size, "format": str(dtype).removeprefix("torch.")}
