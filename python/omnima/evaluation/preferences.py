"""How often a reward model prefers what people preferred."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima.model import Model


@dataclasses.dataclass(frozen=True)
class PairScore:
    """How a reward model judges pairs of answers.

    Attributes
    ----------
    pairs
        How many were compared.
    accuracy
        Share whose preferred answer has the higher reward.
    margin
        Mean reward of the preferred answer over the other.
    mean_reward
        Of all answers.
    """

    pairs: int
    accuracy: float
    margin: float
    mean_reward: float

    def as_dict(self) -> dict[str, Any]:
        """Return the result in the form that `omnima reward --json` prints."""
        return dataclasses.asdict(self)


def judge_pairs(
    model: Model, data: str | Path | Sequence[str | Path], on_error: Any = "raise"
) -> PairScore:
    """Compare a reward model with people, on files of pairs.

    Parameters
    ----------
    model
        A model with a reward head and a tokenizer.
    data
        Files of the format ``preference``, as `omnima.data.read_examples` takes them.
    on_error
        ``"raise"`` for a broken record, or ``"skip"``.

    Raises
    ------
    ConfigError
        The model has no reward head, or no tokenizer.
    DataError
        Names file and line of what is broken; or there is no pair that fits the context.
    """
    from omnima.data.conversations import open_conversations

    if not model.config.reward_head:
        raise ConfigError(
            "This model has no reward head: train one with `omnima finetune --objective reward`."
        )
    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer: set model.tokenizer, or copy its files.")
    context = model.config.max_position_embeddings
    found = open_conversations(
        data, model.tokenizer, context, val_fraction=0.0, form="scored", on_error=on_error
    )
    given = model.reward([each.ids[:-1] for each in found.samples["train"]])
    margins = [good - bad for good, bad in zip(given[::2], given[1::2])]
    return PairScore(
        len(margins),
        sum(each > 0 for each in margins) / len(margins),
        statistics.fmean(margins),
        statistics.fmean(given),
    )
