"""transformers with PEFT's adapter on every linear layer, with its own loss."""

from __future__ import annotations

import math
from typing import Any

from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of
from omnima.errors import ConfigError

_LORAS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "lora+": {},  # whose rates are the optimizer's
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}
_TOKENS = 20


def _config(method: str, rank: int) -> Any:
    import peft

    everywhere = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    if method in _LORAS:
        return peft.LoraConfig(r=rank, lora_alpha=2 * rank, **everywhere, **_LORAS[method])
    if method == "vera":
        return peft.VeraConfig(r=rank, **everywhere)
    if method == "adalora":
        first = math.ceil(1.5 * rank)
        return peft.AdaLoraConfig(init_r=first, target_r=rank, total_step=1 << 20, **everywhere)
    in_front = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    if method in in_front:
        return in_front[method](num_virtual_tokens=_TOKENS, task_type="CAUSAL_LM")
    raise ConfigError(f"PEFT is not measured with {method}: leave peers out.")


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
    config = _config(job["method"], job["rank"])
    adapted = peft.get_peft_model(model, config)
    # The model shifts the labels itself.
    return step_of(job, adapted, lambda ids, labels: adapted(input_ids=ids, labels=ids).loss)
