"""precision="auto": train a few steps of a small stand-in in both formats and take the faster
one.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

_STEPS = 4
_ROWS = 4
_WORTH_IT = 1.1  # bf16 rounds: it must earn that with speed


@dataclasses.dataclass(frozen=True)
class PrecisionChoice:
    """The chosen number format and the reason, in a sentence."""

    precision: str
    reason: str


def choose_precision(model_config: Any, context: int) -> PrecisionChoice:
    """Measure both formats on this machine and choose.

    Parameters
    ----------
    model_config
        The model to be trained; the stand-in has its widths, with one block and few rows.
    context
        Tokens in a row.
    """
    seconds = {
        precision: _measure(model_config, min(context, 256), precision)
        for precision in ("fp32", "bf16")
    }
    gain = seconds["fp32"] / max(seconds["bf16"], 1e-9)
    chosen = "bf16" if gain >= _WORTH_IT else "fp32"
    return PrecisionChoice(
        chosen,
        f"precision {chosen}: on this machine a step in bf16 runs {gain:.2f}x as fast as in fp32 "
        f"(measured on a one-block stand-in; {_WORTH_IT}x is asked for).",
    )


def _measure(model_config: Any, time_steps: int, precision: str) -> float:
    import torch

    from omnima import _core

    values = {
        **dataclasses.asdict(model_config),
        "num_hidden_layers": 1,
        "max_position_embeddings": max(2, time_steps),
        "dropout": 0.0,
    }
    options = _core.StepOptions()
    options.precision = precision
    options.total_steps = _STEPS + 1
    step = _core.TrainStep(_core.Decoder(_core.DecoderConfig(values), 0), options)
    ids = torch.arange(_ROWS * time_steps).remainder(values["vocab_size"]).view(_ROWS, time_steps)
    taken = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        step.run_batches([(ids, ids)])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])
