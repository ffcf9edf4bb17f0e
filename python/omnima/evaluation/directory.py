"""Measures a saved model on text files: tokenized to a temporary place, read in order, whole."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from omnima._device import check_device
from omnima.errors import ConfigError, DataError
from omnima.evaluation.held_out import Score, score

if TYPE_CHECKING:
    from omnima.data import TokenData

_WORTH_A_ROW = 512  # tokens: shorter rows gain nothing


def open_model(
    directory: str | Path,
    device: str = "cpu",
    strict: bool = False,
    dtype: str = "float32",
    activations: str = "float32",
) -> tuple[Any, Any]:
    """Return a model (of a directory, a GGUF file or a name on the hub) and its tokenizer, which
    must be there.

    Raises
    ------
    ConfigError
        There is no such model, or it has no tokenizer.
    """
    from omnima import Model

    model = Model.from_pretrained(
        directory, device, dtype=dtype, activations=activations, strict=strict
    )
    if model.tokenizer is None:
        raise ConfigError(
            f"{directory} holds a model but no tokenizer, so text cannot become tokens. Copy the "
            "tokenizer's files beside it."
        )
    return model, model.tokenizer


def evaluate_directory(
    directory: str | Path,
    data: Sequence[str],
    *,
    field: str | None = None,
    on_error: str = "raise",
    batch_size: int = 8,
    device: str = "cpu",
    strict: bool = False,
) -> Score:
    """Measure a model on all of a text.

    Parameters
    ----------
    directory
        A Hugging Face directory, a GGUF file or a name on the hub, with a tokenizer.
    data
        What `omnima.data.open_source` takes.
    field, on_error
        How JSON records and bad lines are read.
    batch_size
        Rows measured at once.
    device
        Where the model computes: cpu, cuda or one GPU such as cuda:1.
    strict
        Refuse weights that hold NaN or infinity instead of warning.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is {on_error!r}, but must be raise or skip.")
    model, tokenizer = open_model(directory, check_device(device), strict)
    if not model.config.causal:
        raise DataError(
            f"{directory} holds a model with causal false, which sees the tokens it would have to "
            "predict: it has no loss of next tokens. Its loss of masked ones is in summary.json."
        )
    from omnima import _core
    from omnima.data import open_source, prepare

    source = open_source(list(data), field=field, on_error=cast(Any, on_error))
    step = _core.TrainStep(model.core, _core.StepOptions())
    with tempfile.TemporaryDirectory(prefix="omnima-eval-") as place:
        tokens = prepare(source, tokenizer, Path(place), val_fraction=0.0, seed=0)
        rows, time = batch_shape(tokens, batch_size, model.context)
        return score(step, tokens, "train", rows, time)


def batch_shape(tokens: TokenData, batch_size: int, context: int) -> tuple[int, int]:
    """Return rows and time of batches that hold whole documents and little padding.

    Parameters
    ----------
    tokens
        What is measured: its side "train".
    batch_size
        Rows at most.
    context
        The model's. Rows are as long only where a document is.
    """
    longest = int(np.diff(tokens.document_ends("train"), prepend=0).max(initial=1))
    time = min(context, max(longest, _WORTH_A_ROW))
    return max(1, min(batch_size, -(-tokens.train_tokens // time))), time
