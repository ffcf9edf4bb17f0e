"""What a training run leaves: its history, its summary, its checkpoint and its loss curve."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import CheckpointError, OmnimaError
from omnima.training.records import read_records
from omnima.training.rundir import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY_KEYS = (
    "steps",
    "tokens",
    "seconds",
    "tokens_per_s",
    "train_loss",
    "val_loss",
    "val_perplexity",
    "val_bits_per_byte",
    "entropy_floor",
    "parameters",
    "peak_memory_bytes",
    "checkpoint",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path
        The run's directory; it is a Hugging Face directory too.
    history
        One dict a logged step: step, loss, lr, grad_norm, tokens_per_s; val_loss where measured.
    summary
        The result, with exactly the keys of `SUMMARY_KEYS`.
    samples
        Texts the model wrote at the end.
    """

    path: Path
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    samples: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The trained model's directory, for `omnima.Model.from_pretrained` and transformers."""
        return Path(self.summary["checkpoint"])

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a finished run from its directory."""
        directory = RunDirectory(path)
        try:
            summary = json.loads(directory.summary.read_text(encoding="utf-8"))
            history = read_records(directory.metrics)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} holds no finished run ({error}). Finish it with --resume."
            ) from error
        return cls(Path(path), history, summary)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the loss over the steps, with the entropy floor; save it when a path is given."""
        return plot_history(self.history, self.summary.get("entropy_floor"), path)


def plot_history(
    history: list[dict[str, Any]], floor: float | None, path: str | Path | None = None
) -> Figure:
    """Draw training and held-out loss over the steps, and the floor that no model can beat.

    Raises
    ------
    OmnimaError
        matplotlib is not installed; the message holds the command that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OmnimaError(
            'Drawing needs matplotlib: pip install "omnima[plot]" (or pip install matplotlib).'
        ) from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [each["step"] for each in history if "loss" in each]
    losses = [each["loss"] for each in history if "loss" in each]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(losses), color="tab:blue", label="training loss")
    held_out = [(e["step"], e["val_loss"]) for e in history if e.get("val_loss") is not None]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="tab:orange", label="held-out loss")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", label=f"entropy floor {floor:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        figure.savefig(str(path), dpi=120)
    return figure


def smooth(values: list[float], weight: float = 0.95) -> list[float]:
    """Return the running mean with exponentially fading weights, unbiased at the start.

    >>> smooth([1.0, 1.0])
    [1.0, 1.0]
    """
    smoothed = []
    mean = 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        smoothed.append(round(mean / (1 - weight**count), 12))
    return smoothed


def perplexity(loss: float) -> float:
    """Return e to the loss; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
