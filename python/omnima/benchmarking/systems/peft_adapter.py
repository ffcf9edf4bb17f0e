"""transformers with PEFT's adapter on every linear layer, with its own loss."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of

_METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters that learn."""
    import peft
    import torch
    import transformers

    kind: Any = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(
        job["model"], dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.config.use_cache = False
    config = peft.LoraConfig(
        r=job["rank"],
        lora_alpha=2 * job["rank"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        **_METHODS[job["method"]],
    )
    adapted = peft.get_peft_model(model, config)
    # The model shifts the labels itself.
    return step_of(job, adapted, lambda ids, labels: adapted(input_ids=ids, labels=ids).loss)
