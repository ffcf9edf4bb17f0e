"""All that watches a run, at its turn: the loop says what happened, callbacks hear of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omnima.errors import CallbackError
from omnima.training.callbacks.base import Control, RunState
from omnima.training.callbacks.desk import AlertDesk
from omnima.training.callbacks.handler import CallbackHandler
from omnima.training.callbacks.resources import ResourceMonitor
from omnima.training.callbacks.samples import write_samples
from omnima.training.config import TrainConfig
from omnima.training.display import Display
from omnima.training.rundir import RunDirectory


class Observers:
    """The watchers of one run.

    Parameters
    ----------
    callbacks
        The user's, see `omnima.training.callbacks.Callback`.
    config, directory, model, tokenizer
        The run's.
    display
        Where notes go.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        config: TrainConfig,
        directory: RunDirectory,
        model: Any,
        tokenizer: Any,
        display: Display,
    ) -> None:
        self.state = RunState(directory.path)
        self._config, self._model, self._tokenizer = config, model, tokenizer
        self._display = display
        self._desk = AlertDesk(config, directory.path, display.note)
        self._resources = ResourceMonitor(config.monitor_every, display.note)
        self._norms = _layer_norms(model) if config.norms_every else None
        self._measured: dict[str, Any] = {}  # for the next record
        facts = {"model": model, "tokenizer": tokenizer, "processing_class": tokenizer}
        self._handler = CallbackHandler(callbacks, config, self.state, facts)
        self._epochs_begun = -1

    @property
    def control(self) -> Control:
        """What callbacks ask for."""
        return self._handler.control

    def begin(self, of: int | None = None) -> None:
        """The run begins, or goes on, to so many steps where that is known."""
        self.state.max_steps = of or 0
        self._desk.begin(self.state.global_step)
        self._handler.fire("on_train_begin")

    def step_begin(self, epoch: float) -> None:
        """A step begins at so many passes over the text."""
        self.state.epoch = epoch
        if int(epoch) > self._epochs_begun:
            self._epochs_begun = int(epoch)
            self._handler.fire("on_epoch_begin")
        self._handler.fire("on_step_begin")

    def before_update(self, step: int) -> None:
        """The core is about to do this step."""
        if self._norms is not None and step % self._config.norms_every == 0:
            self._norms.before()

    def updated(self, step: int) -> None:
        """The core has done this step; nothing else has touched the weights yet."""
        if self._norms is not None and step % self._config.norms_every == 0:
            self._measured["norms"] = {
                each.layer: {
                    "gradient": each.gradient,
                    "weight": each.weight,
                    "update": each.update,
                }
                for each in self._norms.after()
            }

    def step_end(self, step: int, loss: float, tokens: int, seconds: float, of: int | None) -> None:
        """The weights have moved."""
        state = self.state
        state.global_step, state.loss, state.tokens = step, loss, tokens
        state.seconds, state.max_steps = seconds, of or 0
        self._desk.step(step, loss)
        self._handler.fire("on_step_end")
        self._fire_alerts()

    def evaluated(self, metrics: dict[str, Any]) -> None:
        """The held-out text was measured."""
        self.state.val_loss = metrics["eval_loss"]
        self._desk.evaluation(metrics["eval_loss"])
        self._handler.fire("on_evaluate", metrics=metrics)
        self._fire_alerts()

    @property
    def want_record(self) -> bool:
        """Whether something was measured, or asked for, that makes this step worth a record."""
        return bool(self._measured) or self.control.should_log

    def measurements(self) -> dict[str, Any]:
        """Return what belongs into the record of this step beside the loop's own numbers."""
        measured, self._measured = self._measured, {}
        return {**self._resources.read(), **measured}

    def logged(self, record: dict[str, Any]) -> None:
        """A record was written."""
        self._handler.fire("on_log", logs=dict(record))  # theirs to change

    def sample(self) -> None:
        """Let the model write, where it is due."""
        every, step = self._config.samples_every, self.state.global_step
        if not every or step % every:
            return
        path = self.state.run_dir / "samples" / f"step-{step:08d}.txt"
        count = max(1, self._config.samples)
        texts = write_samples(self._model, self._tokenizer, self._config, count, path)
        self._handler.fire("on_sample", samples=texts, path=path)

    def pause(self) -> AbstractContextManager[None]:
        """Within the block no step is expected: it is no stall."""
        return self._desk.pause()

    def _fire_alerts(self) -> None:
        for alert in self._desk.take():
            self._handler.fire("on_alert", alert=alert)

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint was written."""
        self._handler.fire("on_save", checkpoint=checkpoint)

    def step_over(self, epoch: float) -> None:
        """Everything that belongs to a step is done."""
        before, self.state.epoch = self.state.epoch, epoch
        if int(epoch) > int(before):
            self._handler.fire("on_epoch_end")
        self.control.granted()

    def finished(self, summary: dict[str, Any]) -> None:
        """The run's result is on disk."""
        try:
            self._handler.fire("on_train_end", summary=summary)
        except CallbackError as error:
            raise CallbackError(
                f"{error} The run itself is finished and whole in {self.state.run_dir}."
            ) from error.__cause__

    def steps_over(self) -> None:
        """No further step comes."""
        self._desk.stop_watching()

    def failed(self, error: BaseException) -> None:
        """The run ends early; what callbacks do wrong now is told beside the reason."""
        self._desk.failed(error)
        for alert in self._desk.take():
            self._handler.fire_last("on_alert", self._display.note, alert=alert)
        self._handler.fire_last("on_exception", self._display.note, exception=error)

    def close(self) -> None:
        """Send what waits."""
        self._desk.close()

    def state_dict(self, *, rescue: bool = False) -> dict[str, Any]:
        """Return what travels in a checkpoint; a rescue goes on without what cannot be had."""
        callbacks = self._handler.state_dict(self._display.note if rescue else None)
        return {"alerts": self._desk.state_dict(), "callbacks": callbacks}

    def load_state_dict(self, kept: dict[str, Any], step: int) -> None:
        """Take back what `state_dict` gave, as of this step."""
        self.state.global_step = step
        if "alerts" in kept:
            self._desk.load_state_dict(kept["alerts"])
        self._handler.load_state_dict(kept.get("callbacks", {}))


def _layer_norms(model: Any) -> Any:
    from omnima import _core

    return _core.LayerNorms(model.core)
