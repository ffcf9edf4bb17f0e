"""litgpt's decoder of the same shape, eager, with PyTorch's cross-entropy."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.shapes import Shape
from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters."""
    from litgpt import GPT, Config  # type: ignore[import-not-found,unused-ignore]
    from torch import nn
    from torch.nn import functional

    shape = Shape(**job["shape"])
    m = shape.model
    model = GPT(
        Config(
            block_size=shape.context,
            vocab_size=m["vocab_size"],
            padded_vocab_size=m["vocab_size"],
            n_layer=m["num_hidden_layers"],
            n_head=m["num_attention_heads"],
            n_query_groups=m["num_key_value_heads"],
            head_size=m["head_dim"],
            n_embd=m["hidden_size"],
            intermediate_size=shape.swiglu_width,
            bias=False,
            rotary_percentage=1.0,
            lm_head_bias=False,
            parallel_residual=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    )
    model.lm_head.weight = model.transformer.wte.weight
    for each in model.parameters():
        if each.dim() > 1:  # torch's wide initial embedding, tied, makes denormals: far slower
            nn.init.normal_(each, std=0.02)

    def loss_of(ids: Any, labels: Any) -> Any:
        return functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten())

    return step_of(job, model, loss_of)
