"""precision="auto": train a few steps of a small stand-in in both formats and take the faster
one.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from omnima.errors import CheckpointError

_STEPS = 4  # of which the first warms up
_ENOUGH = 1.0  # seconds; a large model is measured on fewer steps
_ROWS = 4
WORTH_IT = 1.1  # bf16 rounds: it must earn that with speed


@dataclasses.dataclass(frozen=True)
class PrecisionChoice:
    """The chosen number format and the reason, in a sentence.

    `milliseconds` holds the measured time of a stand-in's step by format; None when the format was
    asked for and nothing was measured.
    """

    precision: str
    reason: str
    milliseconds: dict[str, float] | None = None

    @classmethod
    def asked(cls, precision: str) -> PrecisionChoice:
        """Return the choice of a user who named the format."""
        return cls(precision, f"precision {precision}: as asked for.")

    @classmethod
    def read(cls, path: Path) -> PrecisionChoice:
        """Read what a run wrote as precision.json.

        Raises
        ------
        CheckpointError
            The file is damaged: another choice than the run's would change its weights.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not say the run's precision ({error}). Give the precision that its "
                "checkpoints name in state.json, or start over with --overwrite."
            ) from error


def choose_precision(model_config: Any, context: int, device: str = "cpu") -> PrecisionChoice:
    """Measure both formats on this machine and choose.

    Parameters
    ----------
    model_config
        The model to be trained; the stand-in has its widths, with one block and few rows.
    context
        Tokens in a row.
    device
        Where it is to be trained: there the stand-in is measured, too.
    """
    took = measure_formats(model_config, min(context, 256), device)
    gain = took["fp32"] / max(took["bf16"], 1e-9)
    chosen = "bf16" if gain >= WORTH_IT else "fp32"
    return PrecisionChoice(
        chosen,
        f"precision {chosen}: on this machine a step of a one-block stand-in takes "
        f"{took['bf16']:.1f} ms in bf16 and {took['fp32']:.1f} ms in fp32. bf16 rounds, and is "
        f"taken where it is {WORTH_IT}x as fast; here it is {gain:.2f}x.",
        {name: round(value, 3) for name, value in took.items()},
    )


def measure_formats(model_config: Any, time_steps: int, device: str = "cpu") -> dict[str, float]:
    """Return the milliseconds of a stand-in's training step in each format.

    The formats take turns and the fastest step counts, so that another program that runs for a
    moment falls on both alike.
    """
    import torch

    steps = {name: _stand_in(model_config, time_steps, name, device) for name in ("fp32", "bf16")}
    ids = torch.arange(_ROWS * time_steps).remainder(model_config.vocab_size)
    batch = [(ids.view(_ROWS, time_steps), ids.view(_ROWS, time_steps))]
    for step in steps.values():
        step.run_batches(batch)
    best = dict.fromkeys(steps, float("inf"))
    began = time.perf_counter()
    for _ in range(_STEPS - 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step.run_batches(batch)
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
        if time.perf_counter() - began > _ENOUGH:
            break
    return best


def _stand_in(model_config: Any, time_steps: int, precision: str, device: str) -> Any:
    from omnima import _core

    values = {
        **dataclasses.asdict(model_config),
        "num_hidden_layers": 1,
        "max_position_embeddings": max(2, time_steps),
        "dropout": 0.0,
        "reward_head": False,  # a model for tokens takes about as long
    }
    options = _core.StepOptions()
    options.precision = precision
    options.total_steps = _STEPS + 1
    return _core.TrainStep(_core.Decoder(_core.DecoderConfig(values), 0, device), options)
