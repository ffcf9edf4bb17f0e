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
    """Return the error to show: what happened, where the batch lies and what to try."""
    advice = [f"a lower lr (now {lr:g})", "a longer warmup", "clip_norm 1.0 or below"]
    if precision != "fp32":
        advice.append("precision fp32")
    return NonFiniteError(
        f"Step {step}: {error} The weights were not changed. The batch is in {path}. "
        f"Try {', '.join(advice)}."
    )
