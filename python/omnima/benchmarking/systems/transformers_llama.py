"""transformers' own Llama of the same shape, with its own loss."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.shapes import Shape
from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.torch_loop import step_of


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = Shape(**job["shape"])
    m = shape.model
    config = LlamaConfig(
        vocab_size=m["vocab_size"],
        hidden_size=m["hidden_size"],
        intermediate_size=shape.swiglu_width,
        num_hidden_layers=m["num_hidden_layers"],
        num_attention_heads=m["num_attention_heads"],
        num_key_value_heads=m["num_key_value_heads"],
        head_dim=m["head_dim"],
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    # The model shifts the labels itself.
    return step_of(job, model, lambda ids, labels: model(input_ids=ids, labels=ids).loss)
