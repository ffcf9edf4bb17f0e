"""What each browser tab has said and is being told; several answers at once become one stream."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from omnima.demo.talk import Talk

_TABS = 64  # that are remembered
_PAUSE = 0.08  # seconds between two pictures of what grows


@dataclass
class Session:
    """The conversations of one tab of a browser.

    Attributes
    ----------
    chat
        One conversation.
    compare
        Two that are asked the same.
    plain
        The kinds of conversation whose tokens are drawn without colours.
    """

    chat: list[Talk] = field(default_factory=lambda: [Talk()])
    compare: list[Talk] = field(default_factory=lambda: [Talk(), Talk()])
    plain: set[str] = field(default_factory=set)

    def stop(self) -> None:
        """End all that is being written."""
        for talk in [*self.chat, *self.compare]:
            talk.stop()


class Sessions:
    """The sessions of all tabs; the one that was longest not used goes first.

    >>> sessions = Sessions()
    >>> sessions.of("a") is sessions.of("a")
    True
    """

    def __init__(self, most: int = _TABS) -> None:
        self._most = most
        self._known: OrderedDict[str, Session] = OrderedDict()

    def of(self, tab: str | None) -> Session:
        """Return a tab's session, a new one where it has none."""
        key = tab or ""
        if key not in self._known:
            self._known[key] = Session()
            while len(self._known) > self._most:
                self._known.popitem(last=False)[1].stop()
        self._known.move_to_end(key)
        return self._known[key]

    def leave(self, tab: str | None) -> None:
        """A tab was closed: nothing more is written for it, and nothing of it is kept."""
        session = self._known.pop(tab or "", None)
        if session is not None:
            session.stop()


async def together(
    streams: Sequence[AsyncGenerator[None, None]], pause: float = _PAUSE
) -> AsyncGenerator[None, None]:
    """Follow several streams at once; yields when one of them has news, and not more often than a
    page can be drawn.
    """
    news = asyncio.Event()

    async def follow(stream: AsyncGenerator[None, None]) -> None:
        async with aclosing(stream):
            async for _ in stream:
                news.set()

    tasks = [asyncio.create_task(follow(stream)) for stream in streams]
    try:
        await asyncio.sleep(0)  # so that the first picture shows that they have begun
        while not all(task.done() for task in tasks):
            if news.is_set():
                news.clear()
                yield
            await asyncio.wait(tasks, timeout=pause)
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
