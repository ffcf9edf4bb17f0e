"""Stopping before the budget is spent, once the held-out loss no longer falls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnima.errors import ConfigError
from omnima.training.config import TrainConfig


class EarlyStop:
    """Counts the evaluations since the best one.

    Parameters
    ----------
    patience
        Evaluations without a better loss after which the run stops; 0: it never does.

    >>> stop = EarlyStop(1)
    >>> stop.take_in(2.0), stop.take_in(2.5), stop.reached
    (None, None, True)
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best: float | None = None
        self.waited = 0

    @classmethod
    def of(cls, config: TrainConfig, val_tokens: int) -> EarlyStop:
        """Return the rule of a config; without held-out text there is nothing to wait for."""
        asked = [f"patience is {config.patience}"] if config.patience else []
        asked += ["restore_best is asked for"] if config.restore_best else []
        if asked and val_tokens < 1:
            raise ConfigError(
                f"{' and '.join(asked)}, but no text is held out to measure on. Hold some out with "
                "val_fraction, or leave it out."
            )
        return cls(config.patience)

    @property
    def reached(self) -> bool:
        """Whether the run is over."""
        return self.patience > 0 and self.waited >= self.patience

    @property
    def at_best(self) -> bool:
        """Whether the newest evaluation is the best one."""
        return self.best is not None and self.waited == 0

    def take_in(self, loss: float) -> None:
        """Take in the held-out loss of an evaluation."""
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1

    def reason(self, step: int) -> str:
        """Say why the run ends."""
        return (
            f"Stopped early at step {step}: {self.waited} evaluations without a held-out loss "
            f"below {self.best:.4f} (patience {self.patience})."
        )

    def values(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def load(self, values: Mapping[str, Any] | None) -> None:
        """Take back what a checkpoint kept; None where it is older than this rule."""
        if values is not None:
            self.best, self.waited = values["best"], int(values["waited"])
