"""Calibration text: rows of ids that methods read, and rows that only measure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

#: Read where none is given.
DEFAULT = "pystdlib"
# Tokens of a row, rows that methods read, rows that measure, and the share of the text for these.
_TIME, _ROWS, _MEASURED, _SHARE = 512, 48, 16, 0.1
_SHORTEST = 32
_LARGEST = 4 << 20  # characters of a source that are read
Text = str | Path | list[str]


def rows_of(text: Text | None, tokenizer: Any, context: int) -> tuple[Tensor, Tensor]:
    """Return rows to calibrate on and rows to measure on, int64 ``[rows, time]``, of one text.

    The last tenth of it measures; the rows of each part lie evenly in it.

    Raises
    ------
    DataError
        There is no such text, nothing in it, not enough, or bytes that are no text.
    """
    import torch

    ids = torch.tensor(_ids(DEFAULT if text is None else text, tokenizer))
    held_out = max(int(len(ids) * _SHARE), 2 * _SHORTEST)
    time = min(_TIME, context, held_out)
    if len(ids) < 3 * held_out or time < _SHORTEST:
        raise DataError(
            f"The calibration text {text} has {len(ids)} tokens only: give {6 * _SHORTEST} at "
            "least, and some ten thousand for good results."
        )
    cut = len(ids) - held_out
    return _spread(ids[:cut], time, _ROWS), _spread(ids[cut:], time, _MEASURED)


def _ids(text: Text, tokenizer: Any) -> list[int]:
    ids: list[int] = []
    characters = 0
    for document in _documents(text):
        start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        taken = document[: _LARGEST - characters]
        ids += [*start, *tokenizer.encode(taken), *end]
        characters += len(taken)
        if characters >= _LARGEST:
            break
    return ids


def _documents(text: Text) -> Iterator[str]:
    from omnima.data import open_source
    from omnima.data.base import SKIP_ADVICE

    try:
        yield from open_source(text).documents()
    except DataError as error:  # here bad records cannot be skipped
        raise DataError(f"The calibration text: {str(error).removesuffix(SKIP_ADVICE)}") from None


def _spread(ids: Tensor, time: int, most: int) -> Tensor:
    import torch

    rows = min(most, len(ids) // time)
    gap = (len(ids) - time) / max(1, rows - 1)
    return torch.stack([ids[int(i * gap) : int(i * gap) + time] for i in range(rows)])


def perplexity(model: Any, rows: Tensor) -> float:
    """e to the mean loss of every token but the first of each row."""
    import torch

    total = 0.0
    with torch.no_grad():
        for part in torch.split(rows, max(1, _TIME // rows.shape[1])):
            total += float(model.loss(part[:, :-1], part[:, 1:].contiguous())) * len(part)
    loss = total / len(rows)
    return math.exp(loss) if loss < 700 else math.inf
