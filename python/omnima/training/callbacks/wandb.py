"""Weights & Biases: a run of the same metrics; WANDB_MODE=offline keeps it on this machine."""

from __future__ import annotations

from typing import Any

from omnima.training.callbacks.base import Callback
from omnima.training.callbacks.trackers import flat_metrics, public_config, remember, remembered


class WandbCallback(Callback):
    """Sends metrics, samples and alerts; its files lie under wandb/ in the run's directory.

    The login, the mode and the rest come from the WANDB_… environment variables, as usual.
    """

    def __init__(self) -> None:
        self._run: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Begin a run, or go on with the one of the run that is resumed."""
        import wandb

        self._run = wandb.init(
            project=args.track_project,
            name=state.run_dir.resolve().name,
            id=remembered(state.run_dir, "wandb"),
            resume="allow",
            dir=str(state.run_dir),
            config=public_config(args, facts["model"]),
        )
        remember(state.run_dir, "wandb", self._run.id)

    def on_log(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send a record's numbers."""
        # By our own count: steps that a resumed run does again are known there, and are the same.
        self._run.log(flat_metrics(facts["logs"]), step=state.global_step)

    def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send the samples as a table."""
        import wandb

        table = wandb.Table(columns=["sample"], data=[[text] for text in facts["samples"]])
        self._run.log({"samples": table}, step=state.global_step)

    def on_alert(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send an alert, which the service may mail."""
        alert = facts["alert"]
        self._run.alert(title=f"{alert.kind} at step {alert.step}", text=alert.message)

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write the result and finish the run."""
        self._run.summary.update(flat_metrics(facts["summary"], "summary/"))
        self._finish(0)

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Finish the run as failed."""
        self._finish(1)

    def _finish(self, status: int) -> None:
        if self._run is not None:
            self._run.finish(exit_code=status)
            self._run = None
