"""From a stored model to a quantized directory."""

from __future__ import annotations

from pathlib import Path

from omnima._outputs import new_directory
from omnima.quantization.model import Report, quantize
from omnima.quantization.plan import plan
from omnima.quantization.text import Text


def quantize_directory(
    model: str | Path,
    to: str,
    out: str | Path,
    *,
    method: str | None = None,
    group_size: int | None = None,
    calibration: Text | None = None,
    strict: bool = False,
) -> Report:
    """Load a model, quantize it and save it.

    Parameters
    ----------
    model
        A directory, a GGUF file or a name on the hub.
    to, method, group_size, calibration
        As in :meth:`omnima.Model.quantize`.
    out
        A directory, absent or empty; nothing is there before all is done.
    strict
        Refuse weights that hold NaN or infinity when they are read; they are never quantized.

    Raises
    ------
    ConfigError
        Something unknown, a quantized model, or a directory that has files in it or cannot be
        written.
    DataError
        Damaged files, or a text that is missing, empty, too short or no text.
    """
    from omnima.model import Model

    path = new_directory(out)
    loaded = Model.from_pretrained(model, strict=strict)
    plan(loaded.config.to_dict(), to, method, group_size)  # refuses before text is read
    report = quantize(loaded, to, method, group_size, calibration)
    loaded.save_pretrained(path)
    return report
