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
    error: NonFiniteError, step: int, batch: Path | OSError, lr: float, precision: str
) -> NonFiniteError:
    """Return the error to show: the core's, which says what to try, and where the batch lies.

    A batch that could not be kept is told beside it: what stopped the run is the error that counts.
    """
    if isinstance(batch, OSError):
        where = f"The batch could not be kept ({batch.strerror or batch})"
    else:
        where = f"The batch is in {batch}"
    return NonFiniteError(f"Step {step}: {error} {where}; lr is {lr:g} and precision {precision}.")
