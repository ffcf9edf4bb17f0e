"""When a loss or gradient is not finite: keep the batch for inspection and say what to try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnima.errors import NonFiniteError


def save_batches(loader: Any, position: int, count: int, directory: Path) -> Path:
    """Write the micro-batches at a loader position as batches.npz (plain arrays, no pickle)."""
    import numpy as np

    loader.seek(position)
    arrays: dict[str, Any] = {}
    for number in range(count):
        input_ids, labels, segments = loader.next()
        arrays[f"input_ids_{number}"] = np.asarray(input_ids)
        arrays[f"labels_{number}"] = np.asarray(labels)
        if segments is not None:
            arrays[f"segments_{number}"] = np.asarray(segments)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "batches.npz"
    np.savez(path, **arrays)
    return path


def explain(
    error: NonFiniteError, step: int, path: Path, lr: float, precision: str
) -> NonFiniteError:
    """Return the error to show: the core's, which says what to try, and where the batch lies."""
    return NonFiniteError(
        f"Step {step}: {error} The batch is in {path}; lr is {lr:g} and precision {precision}."
    )
