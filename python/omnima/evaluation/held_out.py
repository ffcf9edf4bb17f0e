"""Loss, perplexity and bits per byte of a model on text it has not seen; nothing of the logits is
kept.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from omnima.errors import DataError

_PART = 16  # batches in one call of the core


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicts a text: `loss` in nats a token over `tokens` predicted tokens."""

    loss: float
    tokens: int
    bytes: float

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits to code one byte of the text: comparable between tokenizers."""
        return self.loss * self.tokens / math.log(2) / self.bytes if self.bytes else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return the result in the form that `omnima eval --json` prints."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "bytes": round(self.bytes),
        }


def score(
    step: Any,
    data: Any,
    split: str,
    rows: int,
    time: int,
    batches: int | None = None,
    objective: Any = None,
) -> Score:
    """Measure a split of prepared token data in order, each document from its own beginning.

    Parameters
    ----------
    step
        A `_core.TrainStep`; its `evaluate` runs without gradients and keeps no logits.
    data
        An `omnima.data.TokenData`.
    split
        "train" or "val".
    rows, time
        Shape of a batch; documents longer than `time` are cut into stretches.
    batches
        At most so many batches; None reads the whole split.
    objective
        What is measured besides next tokens; its loss says nothing about the bytes of the text.
    """
    tokens = data.val_tokens if split == "val" else data.train_tokens
    text_bytes = data.val_bytes if split == "val" else data.train_bytes
    if tokens < 1:
        raise DataError(f"The {split} split holds no token to predict. Give more text.")
    loader = data.loader(
        split,
        rows,
        time,
        seed=0,
        packing="windows" if objective is not None and objective.name == "span" else "documents",
        prefetch=False,
        sequential=True,
        objective=objective,
    )
    whole = loader.batches_per_epoch
    left = whole if batches is None else min(batches, whole)
    loss_sum, seen = 0.0, 0
    while left > 0:  # in parts, so that Ctrl-C is heard between them
        part = min(left, _PART)
        more, targets = step.evaluate(loader, part)
        loss_sum, seen, left = loss_sum + more, seen + targets, left - part
    measured = text_bytes * seen / tokens if objective is None else 0.0
    return Score(loss_sum / max(1, seen), seen, measured)
