"""transformers with PEFT's adapter on every linear layer (or none), with its own loss."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of

_METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {},  # beside weights that are numbers: bitsandbytes' 4 bits are for GPUs
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters that learn."""
    model = opened(job)
    if job["method"] != "full":
        import peft

        model = peft.get_peft_model(model, adapter_config(job))

    def loss_of(ids: Any, labels: Any) -> Any:
        return model(input_ids=ids, labels=unshifted(labels)).loss

    return step_of(job, model, loss_of)


def opened(job: dict[str, Any]) -> Any:
    """Return transformers' model in float32."""
    import torch
    import transformers

    kind: Any = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(
        job["model"], dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.config.use_cache = False
    return model


def adapter_config(job: dict[str, Any]) -> Any:
    """Return PEFT's description of the job's adapter."""
    import peft

    return peft.LoraConfig(
        r=job["rank"],
        lora_alpha=2 * job["rank"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        **_METHODS[job["method"]],
    )


def unshifted(labels: Any) -> Any:
    """Labels at the places of their ids, as transformers wants them: it shifts them itself."""
    import torch

    return torch.nn.functional.pad(labels[:, :-1], (1, 0), value=-100)
