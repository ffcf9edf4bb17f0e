"""Where alerts come together and go out: console, alerts.jsonl, webhook, callbacks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omnima.errors import NonFiniteError
from omnima.training.callbacks.alerts import Alert, LossAlerts
from omnima.training.callbacks.stall import StallWatch
from omnima.training.callbacks.webhook import Webhook
from omnima.training.config import TrainConfig
from omnima.training.records import Records


class AlertDesk:
    """The alerts of one run.

    A stall is told by a thread of its own, while the step that hangs still runs; callbacks hear of
    it when that step is done, because they run between steps.

    Parameters
    ----------
    config
        Which alerts are wanted, and where they go.
    run_dir
        The run's directory.
    note
        Tells a person.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, note: Callable[[str], None]) -> None:
        self._kinds = () if "off" in config.alerts else config.alerts
        self._stall_after = config.stall_after
        self._address = config.alert_webhook
        self._run_dir, self._note = run_dir, note
        self._losses = LossAlerts(self._kinds)
        self._lock = threading.Lock()
        self._untold: list[Alert] = []  # to callbacks
        self._records: Records | None = None
        self._webhook: Webhook | None = None
        self._watch: StallWatch | None = None
        self._step = 0

    def begin(self, step: int) -> None:
        """Begin to watch after so many steps."""
        self._step = step
        if self._path.exists():
            self._open()  # drops those of steps that are done again
        if self._address is not None:
            self._webhook = Webhook(self._address, self._note)
        if "stall" in self._kinds:
            self._watch = StallWatch(self._stall_after, self._stalled)

    def step(self, step: int, loss: float) -> None:
        """A step is done."""
        self._step = step
        if self._watch is not None:
            self._watch.step()
        for alert in self._losses.step(step, loss):
            self._tell(alert)

    def evaluation(self, loss: float) -> None:
        """The held-out text was measured."""
        for alert in self._losses.evaluation(self._step, loss):
            self._tell(alert)

    def failed(self, error: BaseException) -> None:
        """The run ends early; a loss that is not finite is an alert too."""
        if isinstance(error, NonFiniteError) and "divergence" in self._kinds:
            self._tell(Alert("divergence", self._step, str(error), {}))

    def take(self) -> list[Alert]:
        """Return the alerts that callbacks have not heard of."""
        with self._lock:
            taken, self._untold = self._untold, []
        return taken

    def pause(self) -> AbstractContextManager[None]:
        """Within the block no step is expected."""
        return self._watch.pause() if self._watch is not None else contextlib.nullcontext()

    def stop_watching(self) -> None:
        """No further step is expected."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """Send what waits and stop."""
        self.stop_watching()
        if self._webhook is not None:
            self._webhook.close()
            self._webhook = None
        if self._records is not None:
            self._records.close()
            self._records = None

    def state_dict(self) -> dict[str, Any]:
        """Return what travels in a checkpoint."""
        return self._losses.state_dict()

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._losses.load_state_dict(kept)

    @property
    def _path(self) -> Path:
        return self._run_dir / "alerts.jsonl"

    def _open(self) -> Records:
        if self._records is None:
            self._records = Records(self._path, keep_until=self._step)
        return self._records

    def _stalled(self, seconds: float, usual: float) -> None:
        self._tell(
            Alert(
                "stall",
                self._step,
                f"No step was finished for {seconds:.0f} s after step {self._step}; {usual:.2f} s "
                "is usual. Is the machine busy with something else, out of memory, or its disk "
                "gone?",
                {"seconds": seconds, "usual_seconds": usual},
            )
        )

    def _tell(self, alert: Alert) -> None:
        with self._lock:
            self._untold.append(alert)
            self._open().add(alert.record())
        self._note(f"Alert, {alert.kind}: {alert.message}")
        if self._webhook is not None:
            run = self._run_dir.resolve().name
            text = f"{run}: {alert.kind}: {alert.message}"
            self._webhook.post({"text": text, "run": run, **alert.record()})
