"""TensorBoard: event files in the run's directory, for `tensorboard --logdir`."""

from __future__ import annotations

import json
from typing import Any

from omnima.training.callbacks.base import Callback
from omnima.training.callbacks.trackers import flat_metrics, public_config


class TensorBoardCallback(Callback):
    """Writes metrics, samples, alerts and the config as event files under tensorboard/."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Open the event file; steps that a resumed run does again replace the old ones."""
        from torch.utils.tensorboard import SummaryWriter

        first = state.global_step + 1
        self._writer = SummaryWriter(
            str(state.run_dir / "tensorboard"), purge_step=first if first > 1 else None
        )
        config = json.dumps(public_config(args, facts["model"]), indent=2, default=str)
        self._writer.add_text("config", f"```\n{config}\n```", state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write a record's numbers."""
        for name, value in flat_metrics(facts["logs"]).items():
            self._writer.add_scalar(name, value, state.global_step)

    def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write the samples as text."""
        for number, text in enumerate(facts["samples"]):
            self._writer.add_text(f"sample/{number}", text, state.global_step)

    def on_alert(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write an alert as text."""
        alert = facts["alert"]
        self._writer.add_text(f"alert/{alert.kind}", alert.message, alert.step)

    def on_save(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write out what waits, so that a kill loses no more than since the last checkpoint."""
        self._writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Write the result and close."""
        for name, value in flat_metrics(facts["summary"], "summary/").items():
            self._writer.add_scalar(name, value, state.global_step)
        self._close()

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Close."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
