"""The process that trains a model for a page: it is told a recipe, says what happens, a JSON object
a line, and ends when it is asked to or when the page's process goes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

from omnima.errors import OmnimaError
from omnima.training.callbacks import Callback

_SECONDS = 0.2  # between two lines about steps


class Teller(Callback):
    """Says what happens in a run, and ends it when that is asked for."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._steps: list[dict[str, Any]] = []
        self._due = 0.0
        self.stop = threading.Event()

    def tell(self, **said: Any) -> None:
        """Say something."""
        with self._lock:
            self._out.write(json.dumps(said) + "\n")
            self._out.flush()

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Say what was before, where a run goes on."""
        if state.log_history:
            self.tell(before=[_point(each) for each in state.log_history], of=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Take the loss; say it where it is time."""
        self._steps.append({"step": state.global_step, "loss": state.loss})
        control.should_stop = control.should_stop or self.stop.is_set()
        if time.monotonic() >= self._due:
            self._tell_steps(state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Say the held-out loss, behind the steps that lead to it."""
        self._tell_steps(state.max_steps)
        self.tell(step=state.global_step, val_loss=state.val_loss)

    def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Say what the model writes now."""
        self.tell(step=state.global_step, sample=facts["samples"][0])

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Say what is left."""
        self._tell_steps(state.max_steps)

    def _tell_steps(self, of: int) -> None:
        if self._steps:
            self.tell(steps=self._steps, of=of)
            self._steps = []
        self._due = time.monotonic() + _SECONDS


def work(heard: TextIO, out: TextIO) -> None:
    """Train what the first line says.

    Parameters
    ----------
    heard
        The recipe's keys as a JSON object in the first line, with "resume" where a run is to go
        on; then any line, or the end, asks to stop.
    out
        Where is said what happens.
    """
    teller = Teller(out)
    first = heard.readline()
    if not first:
        return

    def listen() -> None:
        heard.readline()  # "stop", or nothing: the page's process has gone
        teller.stop.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        from omnima.training.display import Display
        from omnima.training.launch import train
        from omnima.training.recipe import Recipe

        asked = json.loads(first)
        resume = bool(asked.pop("resume", False))
        recipe = Recipe.from_layers(asked)
        if resume:
            _reopen(recipe)
        run = train(recipe, resume=resume, display=Display(silent=True), callbacks=[teller])
    except Exception as error:  # noqa: BLE001 - told to who has asked
        ours = isinstance(error, OmnimaError)
        teller.tell(failed=str(error) if ours else f"{type(error).__name__}: {error}")
        return
    summary = run.summary
    teller.tell(
        done=str(run.path),
        steps_done=summary["steps"],
        val_loss=summary["val_loss"],
        best_step=summary.get("best_step"),
        samples=list(run.samples),
    )


def _reopen(recipe: Any) -> None:
    """A run that was stopped has a summary, as one that is done: without it, it goes on."""
    from omnima.training.rundir import RunDirectory
    from omnima.training.trainer import out_of

    RunDirectory(out_of(recipe.train)).summary.unlink(missing_ok=True)


def _point(record: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a run's records as the page draws it; a loss that was no number is none there."""
    loss, val_loss = record["loss"], record.get("val_loss")
    point = {"step": record["step"], "loss": math.nan if loss is None else loss}
    return point if val_loss is None else {**point, "val_loss": val_loss}


def main() -> None:
    """Train what standard input says."""
    # Ctrl-C at a terminal reaches this process, too; the page's process decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with own_output() as out:
        work(sys.stdin, out)


def own_output() -> TextIO:
    """Return standard output for the messages alone: what else is printed, by the core or a
    library, goes to standard error from now on.
    """
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out
