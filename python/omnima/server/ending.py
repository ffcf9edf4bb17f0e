"""SIGTERM and Ctrl-C while a server is not there yet: there is nothing to drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: What ends a server.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Inside, these signals end the process with 0, where no event loop has its own way with them.

    Without it SIGTERM would end it by force, and be lost in a container, where the first process
    hears only what it asks for.
    """

    def leave(*_: Any) -> None:
        raise SystemExit(0)

    before = {each: signal.signal(each, leave) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def cancel_at_signals() -> None:
    """The first of these signals cancels the task that is running, until others say what it does.

    The task's own ``finally`` then ends what it has begun.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        for each in SIGNALS:  # a second one must not break off the ending
            loop.add_signal_handler(each, lambda: None)
        task.cancel()

    for each in SIGNALS:
        loop.add_signal_handler(each, cancel)
