"""What a person sees while a model trains, on standard error: a live line at a terminal, else a
line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from omnima.data import PrepareProgress

_QUIET_SECONDS = 5.0
_WIDTH = 120  # columns of tables where there is no terminal


def format_bytes(count: float) -> str:
    """Write a number of bytes for people.

    >>> format_bytes(3_400_000_000)
    '3.4 GB'
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_seconds(seconds: float | None) -> str:
    """Write a duration for people.

    >>> format_seconds(3725)
    '1:02:05'
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Display:
    """Shows notes and the state of a run.

    Parameters
    ----------
    stream
        Where to write; standard error by default.
    live
        A redrawn line; by default when the stream is a terminal.
    silent
        Write nothing at all.
    """

    def __init__(
        self, stream: TextIO | None = None, live: bool | None = None, silent: bool = False
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty() if live is None else live
        self._silent = silent
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._written = 0.0

    def __enter__(self) -> Display:
        if self._live and not self._silent:
            self._progress = self._make_progress()
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def note(self, text: str) -> None:
        """Say one thing, above the live line."""
        if self._silent:
            return
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def tables(self, parts: Iterable[Table]) -> None:
        """Show tables, above the live line."""
        if self._silent:
            return
        from rich.console import Console

        live = None if self._progress is None else self._progress.console
        width = None if self._stream.isatty() else _WIDTH
        console = live or Console(file=self._stream, width=width, highlight=False)
        console.print(*parts, sep="\n")

    def show(self, state: dict[str, Any], fraction: float, left: float | None) -> None:
        """Show a step: its record, how much of the run is done and the seconds left."""
        self._update(describe(state), fraction, left)

    def preparing(self, done: PrepareProgress) -> None:
        """Show how far tokenization has come."""
        text = (
            f"tokenizing  {format_bytes(done.bytes)}  {done.documents:,} documents  "
            f"{done.tokens:,} tokens"
        )
        fraction = done.bytes / done.total_bytes if done.total_bytes else 0.0
        self._update(text, min(fraction, 1.0), None)

    def scoring(self, done: int, documents: int) -> None:
        """Show how many documents a model has measured for a curriculum."""
        self._update(f"measuring  {done:,} of {documents:,} documents", done / documents, None)

    def _update(self, text: str, fraction: float, left: float | None) -> None:
        if self._silent:
            return
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, completed=fraction, text=text, left=format_seconds(left)
            )
            return
        now = time.monotonic()
        if now - self._written >= _QUIET_SECONDS or fraction >= 1.0:
            self._written = now
            self.note(f"{fraction:4.0%}  {text}  left {format_seconds(left)}")

    def _make_progress(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("left {task.fields[left]}"),
            console=Console(file=self._stream, force_terminal=True),
            refresh_per_second=4,
        )
        self._task = progress.add_task("train", total=1.0, text="starting", left="?")
        return progress


def describe(state: dict[str, Any]) -> str:
    """Write a record as one line: step, losses, floor, speed and memory."""
    parts = [f"step {state['step']}/{state['of']}" if state.get("of") else f"step {state['step']}"]
    parts.append(f"loss {state['loss']:.4f}")
    if state.get("val_loss") is not None:
        parts.append(f"held-out {state['val_loss']:.4f}")
    if state.get("floor") is not None:
        parts.append(f"floor {state['floor']:.4f}")
    if state.get("tokens_per_s") is not None:
        parts.append(f"{state['tokens_per_s']:,.0f} tokens/s")
    if state.get("memory") is not None:
        parts.append(format_bytes(state["memory"]))
    return "  ".join(parts)
