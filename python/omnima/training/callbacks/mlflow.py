"""MLflow: a run of the same metrics, in the store of MLFLOW_TRACKING_URI or in files here."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from omnima.training.callbacks.base import Callback
from omnima.training.callbacks.trackers import flat_metrics, public_config, remember, remembered

_WAITING = 1000  # metrics at most before they are sent: the most one call takes
_PARAMS = 100  # in one call, likewise
_VALUE = 500  # characters of a parameter


class MlflowCallback(Callback):
    """Sends parameters, metrics, samples and alerts; without a store of yours under mlruns/."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""
        self._waiting: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Begin a run, or go on with the one of the run that is resumed."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=_store(state.run_dir))
        known = remembered(state.run_dir, "mlflow")
        if known is not None:
            self._run = known
            self._client.set_terminated(known, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(args.track_project)
        experiment = (
            found.experiment_id if found else self._client.create_experiment(args.track_project)
        )
        name = state.run_dir.resolve().name
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        remember(state.run_dir, "mlflow", self._run)
        self._send_params(public_config(args, facts["model"]))

    def _send_params(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_VALUE]) for key, value in values.items()]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self._run, params=params[first : first + _PARAMS])

    def on_log(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Keep a record's numbers: many are sent at once, one by one would cost a step's time."""
        self._add(flat_metrics(facts["logs"]), state.global_step)

    def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send the file of the samples."""
        self._client.log_artifact(self._run, str(facts["path"]), "samples")

    def on_alert(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send an alert as a tag of the run."""
        alert = facts["alert"]
        self._client.set_tag(self._run, f"alert.{alert.kind}", alert.message)

    def on_save(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send what waits, so that a kill loses no more than since the last checkpoint."""
        self._send()

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Send the result and finish the run."""
        self._add(flat_metrics(facts["summary"], "summary/"), state.global_step)
        self._end("FINISHED")

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Finish the run as failed, or as killed when it was interrupted."""
        stopped = isinstance(facts["exception"], KeyboardInterrupt)
        self._end("KILLED" if stopped else "FAILED")

    def _add(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if len(self._waiting) + len(metrics) > _WAITING:
            self._send()
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in metrics.items()]

    def _send(self) -> None:
        while self._waiting:
            part, self._waiting = self._waiting[:_WAITING], self._waiting[_WAITING:]
            self._client.log_batch(self._run, metrics=part)

    def _end(self, status: str) -> None:
        if self._client is not None:
            self._send()
            self._client.set_terminated(self._run, status=status)
            self._client = None


def _store(run_dir: Path) -> str:
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    # Newer versions ask for this before they write plain files.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (run_dir / "mlruns").resolve().as_uri()
