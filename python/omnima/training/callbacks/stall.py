"""A watch that wakes when no step has been finished for too long."""

from __future__ import annotations

import collections
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator

_STEPS = 10  # usual steps that are no stall, however slow they are
_KEPT = 50


class StallWatch:
    """Calls `tell(seconds, usual)` from its own thread, once a stall.

    Parameters
    ----------
    after
        Seconds without a step that are a stall, or ten usual steps where that is more.
    tell
        Called with the seconds since the last step, and the median seconds of a step.
    """

    def __init__(self, after: float, tell: Callable[[float, float], None]) -> None:
        self._after, self._tell = after, tell
        self._seconds: collections.deque[float] = collections.deque(maxlen=_KEPT)
        self._last = time.monotonic()
        self._held = 0
        self._told = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stall-watch", daemon=True)
        self._thread.start()

    def step(self) -> None:
        """A step is done."""
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last, self._told = now, False

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Within the block something else than steps goes on: evaluating, saving, sampling."""
        self._held += 1
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._held -= 1

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(min(1.0, self._after / 4)):
            seconds = list(self._seconds)
            usual = statistics.median(seconds) if seconds else 0.0
            passed = time.monotonic() - self._last
            if self._held or self._told or passed < max(self._after, _STEPS * usual):
                continue
            self._told = True
            self._tell(passed, usual)
