"""The larger model that a smaller one learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima.model import Model


def open_teacher(path: str, model: Model, context: int, device: str, precision: str) -> Model:
    """Open a teacher as its run computes with it: it only reads.

    On the CPU one whose directory is quantized stays in its blocks, and a run in bf16 holds the
    matrices in bfloat16 alone, which are the numbers that its products take: 2 bytes each, not 4
    and a copy of 2.

    Parameters
    ----------
    path
        What `Model.from_pretrained` takes.
    model
        That learns from it.
    context
        Tokens of a row.
    device, precision
        Of the run.

    Raises
    ------
    ConfigError
        It does not speak in the model's tokens, does not predict next tokens, or its context is too
        short.
    """
    from omnima.model import Model

    teacher = Model.from_pretrained(path, device, dtype=_dtype_of(path, device, precision))
    theirs, ours = teacher.tokenizer, model.tokenizer
    assert ours is not None
    if theirs is None:
        raise ConfigError(f"The teacher {path} has no tokenizer: it must be the model's.")
    if theirs.description.pieces != ours.description.pieces:
        raise ConfigError(
            f"The teacher {path} has {theirs.vocab_size:,} tokens, the model "
            f"{ours.vocab_size:,}, and they are not the same: logits can be learned from a model "
            "of the same vocabulary only. Take one of the same family, or learn the teacher's "
            "texts with objective sft."
        )
    if teacher.config.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"The teacher's logits have {teacher.config.vocab_size:,} rows, the model's "
            f"{model.config.vocab_size:,}: bring the smaller one up with model.resize()."
        )
    if teacher.config.reward_head or not teacher.config.causal:
        raise ConfigError(f"The teacher {path} does not predict next tokens.")
    if context > teacher.config.max_position_embeddings:
        raise ConfigError(
            f"context is {context}, but the teacher's context holds "
            f"{teacher.config.max_position_embeddings}: train on shorter rows."
        )
    return teacher


def _dtype_of(path: str, device: str, precision: str) -> str:
    """What a teacher is loaded as."""
    from omnima._places import find_model
    from omnima.hub.quantized import is_quantized

    if device != "cpu":
        return "float32"
    if is_quantized(find_model(path)):
        return "stored"
    return "bf16" if precision == "bf16" else "float32"
