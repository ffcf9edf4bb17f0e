"""Embeddings, one text after another, whatever becomes of those who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from omnima.server.errors import RequestError
from omnima.server.jobs import EngineClient

Gone = Callable[[], Awaitable[bool]]


class Embeddings:
    """Asks an engine for one embedding at a time; all methods belong to one event loop.

    Nothing ends what an engine has begun. So a text keeps its place until it is computed, though
    its client has gone: else those who ask and go would fill the engine with work.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._place = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[list[float]]] = set()  # else nothing else might hold them

    async def of(
        self, rows: Sequence[list[int]], adapter: str | None, seconds: float, gone: Gone | None
    ) -> list[list[float]]:
        """Return the embedding of each text; see :meth:`omnima.server.service.Service.embed`."""
        late = asyncio.get_running_loop().time() + seconds
        try:
            return [await self._one(ids, adapter, late, gone) for ids in rows]
        except asyncio.TimeoutError:
            message = f"The texts were not read within {seconds:g} seconds."
            raise RequestError(message, 504, code="timeout") from None

    async def _one(
        self, ids: list[int], adapter: str | None, late: float, gone: Gone | None
    ) -> list[float]:
        """That of one text; asyncio.TimeoutError: not until then."""
        began = False

        async def work() -> list[float]:
            nonlocal began
            async with self._place:
                began = True
                if gone is not None and await gone():
                    raise RequestError("The client has gone.", 499)
                return await self._engine.embed(ids, adapter)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._end)
        try:
            left = late - asyncio.get_running_loop().time()
            await asyncio.wait([task], timeout=max(0.0, left))
            if not task.done():
                raise asyncio.TimeoutError
            return task.result()
        finally:
            if not began:
                task.cancel()

    def _end(self, task: asyncio.Task[list[float]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of which nobody else may hear, as its client has gone
