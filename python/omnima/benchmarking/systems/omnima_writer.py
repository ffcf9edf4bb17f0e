"""Our own engine, as `Model.generate` calls it."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Writer


def build(job: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Return what writes, and what is known of the model."""
    import torch

    from omnima import generation
    from omnima.benchmarking.formats import open_in

    torch.set_num_threads(job["threads"])
    model, weight_bytes = open_in(
        job["model"], job["precision"], job.get("copy"), job.get("activations", "float32")
    )

    def write(prompts: list[list[int]], new_tokens: int) -> list[int]:
        # Without the tokenizer: no text is made, and no id ends a sequence.
        written = generation.generate(
            model,
            None,
            prompts,
            max_new_tokens=new_tokens,
            temperature=0.0,
            prompt_precision="fp32" if job["precision"] == "f32" else "bf16",
            cache_precision=job.get("cache_precision", "fp32"),
        )
        return written[0].ids

    return write, {"weight_bytes": weight_bytes, "format": job.get("copy_kind", job["precision"])}
