"""transformers with PEFT's adapter on every linear layer (or none), with its own loss."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of
from omnima.errors import OmnimaError

# Of LoRA and its kin.
_METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora+": {},  # other learning rates, the same step
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
    """Return PEFT's description of the job's adapter.

    Raises
    ------
    OmnimaError
        PEFT has no such kind.
    """
    import peft

    from omnima.adapters import AdapterOptions

    method = job["method"]
    ours = AdapterOptions.of("lora" if method == "qlora" else method, **job["options"])
    task: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    everywhere = {**task, "target_modules": "all-linear"}
    if method in _METHODS:
        alpha: dict[str, Any] = {"r": ours.rank, "lora_alpha": ours.alpha}
        return peft.LoraConfig(**alpha, **everywhere, **_METHODS[method])
    if method == "vera":
        return peft.VeraConfig(r=ours.rank, **everywhere)
    if method == "adalora":
        ranks: dict[str, Any] = {
            "target_r": ours.rank,
            "init_r": ours.initial_rank,
            "lora_alpha": ours.alpha,
        }
        return peft.AdaLoraConfig(**ranks, **everywhere, total_step=1000)
    if method == "ia3":
        return peft.IA3Config(**task)
    in_front: dict[str, Any] = {
        "prompt": peft.PromptTuningConfig,
        "prefix": peft.PrefixTuningConfig,
    }
    if method not in in_front:
        raise OmnimaError(f"PEFT has no {method}")
    return in_front[method](**task, num_virtual_tokens=ours.virtual_tokens)


def unshifted(labels: Any) -> Any:
    """Labels at the places of their ids, as transformers wants them: it shifts them itself."""
    import torch

    return torch.nn.functional.pad(labels[:, :-1], (1, 0), value=-100)
