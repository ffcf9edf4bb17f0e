"""What a training run leaves: its history, its summary, its checkpoint and its loss curve."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import CheckpointError
from omnima.training.records import read_records
from omnima.training.rundir import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

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
        """Draw the loss over the steps, with the entropy floor, the learning rate and the speed;
        save it when a path is given.

        Raises
        ------
        OmnimaError
            matplotlib is not installed; the message holds the command that installs it.
        """
        from omnima.notebook.curves import plot_history

        return plot_history(self.history, self.summary.get("entropy_floor"), path)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers of the history as arrays of one length: ``step`` int64, the others
        float64 with NaN where a record lacks them.

        >>> Run(Path("run"), [{"step": 1, "loss": 2.5}], {}).arrays()
        {'step': array([1]), 'loss': array([2.5])}
        """
        from omnima.notebook.curves import history_arrays

        return history_arrays(self.history)


def perplexity(loss: float) -> float:
    """Return e to the loss; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
