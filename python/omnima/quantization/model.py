"""Quantizes a model in place and says what it cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.hub.quantized import Quantization, stored_bytes
from omnima.quantization import text as texts
from omnima.quantization.plan import Plan, plan

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.model import Model


@dataclasses.dataclass(frozen=True)
class Report:
    """What quantizing a model made of it.

    Attributes
    ----------
    bits_per_weight
        Of all that is stored, scales and kept parameters included.
    bytes
        Of all tensors as they are saved.
    perplexity_before, perplexity_after
        On the part of the calibration text that no method read; None without a tokenizer.
    seconds
        Of reading the calibration text and quantizing; measuring is not counted.
    kept_in_high_precision
        Names of the parameters that stayed as they were, in float32.
    """

    bits_per_weight: float
    bytes: int
    perplexity_before: float | None
    perplexity_after: float | None
    seconds: float
    kept_in_high_precision: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the result in the form that `omnima quantize --json` prints."""
        return dataclasses.asdict(self)


def quantize(
    model: Model,
    to: str,
    method: str | None = None,
    group_size: int | None = None,
    calibration: texts.Text | Tensor | None = None,
    *,
    zero_point: bool | None = None,
    ends: str = "int8",
    keep: Iterable[str] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Quantize a model in place; see :meth:`omnima.Model.quantize`."""
    if model.quantization is not None:
        of = model.quantization.settings
        raise ConfigError(
            f"This model is quantized already ({of['to']}, {of['method']}): to quantize it "
            "otherwise, load the model that it was made from."
        )
    chosen = plan(model.config.to_dict(), to, method, group_size, zero_point, ends, keep)
    began = time.perf_counter()
    rows, measured = _rows(model, chosen, calibration)
    seconds = time.perf_counter() - began
    before = None if measured is None else texts.perplexity(model, measured)
    began = time.perf_counter()
    made = model.core.quantize(rows, chosen.method, dict(chosen.formats), progress)
    seconds += time.perf_counter() - began
    model.quantization = Quantization(
        settings={
            "to": chosen.to,
            "method": chosen.method,
            "group_size": chosen.group_size,
            "zero_point": chosen.zero_point,
        },
        formats={name: format for name, format, _ in made},
        blocks={name: blocks for name, _, blocks in made},
    )
    after = None if measured is None else texts.perplexity(model, measured)
    size = stored_bytes(model.quantization, dict(model.named_parameters()))
    return Report(
        bits_per_weight=8 * size / model.num_parameters,
        bytes=size,
        perplexity_before=before,
        perplexity_after=after,
        seconds=seconds,
        kept_in_high_precision=list(chosen.kept),
    )


def _rows(
    model: Model, chosen: Plan, calibration: texts.Text | Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The rows to calibrate on and those to measure on."""
    import torch

    if isinstance(calibration, torch.Tensor):
        return calibration, None
    if model.tokenizer is None:
        if calibration is None and chosen.method == "rtn":
            return None, None
        raise ConfigError(
            f"This model has no tokenizer, so {chosen.method} cannot read text: give "
            "calibration=ids, int64 [rows, time], or set model.tokenizer."
        )
    return texts.rows_of(calibration, model.tokenizer, model.config.max_position_embeddings)
