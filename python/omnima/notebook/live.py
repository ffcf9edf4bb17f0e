"""A run that is drawn while it trains: one figure in place in a notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from omnima.notebook.curves import plot_history, smooth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES_EVERY = 5.0  # seconds
_SPARK_WIDTH = 40
_BARS = "▁▂▃▄▅▆▇█"
_FROM_LOGS = ("lr", "grad_norm", "tokens_per_s", "val_loss")


class LivePlot:
    """A callback that shows a run's loss, learning rate and speed while it trains.

    In a notebook it redraws one figure in place. Elsewhere it writes a line now and then, with the
    loss so far as a row of bars.

    Parameters
    ----------
    share
        The most of the run's time that drawing may take: a slow machine sees fewer pictures.
    stream
        Where lines go; standard output when None.

    Examples
    --------
    >>> import omnima
    >>> text = omnima.data.open_source("tinyworld:20KB")
    >>> tokenizer = omnima.Tokenizer.train(text, "byte")
    >>> model = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    >>> config = {"steps": 2, "batch_size": 2, "context": 32}
    >>> live = omnima.notebook.LivePlot()
    >>> run = omnima.Trainer(model, tokenizer, text, config, callbacks=[live]).fit()
    step 2/2  loss ...
    >>> len(live.history)
    2
    """

    def __init__(self, share: float = 0.05, stream: TextIO | None = None) -> None:
        #: One dict a step: step and loss, and what was measured there.
        self.history: list[dict[str, Any]] = []
        self._share, self._stream = share, stream
        self._floor: float | None = None
        self._update: Callable[[Any], None] | None = None
        self._due = 0.0
        self._of = 0

    def figure(self) -> Figure:
        """Draw what there is so far."""
        return plot_history(self.history, self._floor)

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Forget an earlier run."""
        self.history, self._of = [], state.max_steps
        self._floor, self._update = None, None
        self._due = time.monotonic() + (0.0 if _notebook_display() else _LINES_EVERY)

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Take the loss, and draw where it is time."""
        self.history.append({"step": state.global_step, "loss": state.loss})
        self._of = state.max_steps
        if time.monotonic() >= self._due:
            self._show()

    def on_log(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Take what was measured at this step."""
        if self.history:
            logs = facts["logs"]
            known = {name: logs[name] for name in _FROM_LOGS if logs.get(name) is not None}
            self.history[-1].update(known)

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Show the whole run."""
        self._floor = facts.get("summary", {}).get("entropy_floor")
        self._show()

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Show how far it came."""
        self._show()

    def _show(self) -> None:
        if not self.history:
            return
        begun = time.monotonic()
        display = _notebook_display()
        if display is None:
            print(self._line(), file=self._stream or sys.stdout, flush=True)
            self._due = begun + _LINES_EVERY
            return
        picture = self.figure()
        if self._update is None:
            self._update = display(picture, display_id=True).update
        else:
            self._update(picture)
        done = time.monotonic()
        self._due = done + (done - begun) / self._share

    def _line(self) -> str:
        last = self.history[-1]
        of = f"/{self._of}" if self._of else ""
        bars = spark(smooth([each["loss"] for each in self.history]))
        return f"step {last['step']}{of}  loss {last['loss']:.4f}  {bars}"


def spark(values: Sequence[float], width: int = _SPARK_WIDTH) -> str:
    """Draw numbers as a row of bars of eight heights, at most `width` of them.

    >>> spark([3.0, 2.0, 1.0, 1.0])
    '█▅▁▁'
    """
    if len(values) > width:
        values = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(
        _BARS[round((value - low) / step)] if abs(value) < float("inf") else "?" for value in values
    )


def _notebook_display() -> Callable[..., Any] | None:
    """The function that shows things in a notebook, where this runs in one."""
    shell = sys.modules.get("IPython")  # it is there already, or this is none
    running = None if shell is None else shell.get_ipython()
    if shell is None or getattr(running, "kernel", None) is None:
        return None
    from importlib import import_module

    show: Callable[..., Any] = import_module("IPython.display").display
    return show
