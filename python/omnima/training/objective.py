"""The objective of a run: what its config asks of its data, its tokenizer and its model, and the
batches that follow from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.data import objectives
from omnima.errors import ConfigError
from omnima.training.config import TrainConfig

if TYPE_CHECKING:
    from omnima._core import CurriculumOptions, ObjectiveOptions


def objective_of(config: TrainConfig, tokenizer: Any) -> ObjectiveOptions | None:
    """Return what the rows of a run ask for; None for next tokens."""
    return objectives.with_tokens(
        config.objective, config.corruption_rate, config.span_length, tokenizer
    )


def training_loader(
    data: Any,
    config: TrainConfig,
    tokenizer: Any,
    rows: int,
    time_steps: int,
    curriculum: CurriculumOptions | None = None,
) -> Any:
    """Return the loader of a run's batches: its objective, cut anew by chance where asked, easy
    text first where there is a curriculum.
    """
    return data.loader(
        "train",
        rows,
        time_steps,
        seed=config.seed,
        packing=config.packing,
        objective=objective_of(config, tokenizer),
        tokenizer=tokenizer,
        dropout=config.bpe_dropout,
        alpha=config.subword_sampling,
        curriculum=curriculum,
    )


def special_tokens_of(config: TrainConfig, context: int) -> tuple[str, ...]:
    """Return the special tokens that a run's own tokenizer needs for its objective."""
    return objectives.special_tokens(
        config.objective, context, config.corruption_rate, config.span_length
    )


def check_attention(config: TrainConfig, causal: bool) -> None:
    """Refuse a model that cannot learn the objective, or would only learn to copy.

    >>> check_attention(TrainConfig(steps=1, objective="masked"), causal=False)
    """
    if (config.objective == "masked") == (not causal):
        return
    if causal:
        raise ConfigError(
            "objective masked needs a model that sees both sides of a token: make it with causal "
            "false."
        )
    raise ConfigError(
        f"A model with causal false sees the tokens that objective {config.objective} lets it "
        "predict: train it with objective masked, or make it with causal true."
    )
