"""An engine in a process of its own, which is started again when it dies or writes no more."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from omnima.errors import ConfigError, OmnimaError
from omnima.server.errors import RequestError, engine_away
from omnima.server.jobs import Job, Listener
from omnima.server.watch import Watch
from omnima.server.wire import Unpacker, packed
from omnima.server.worker import Opening

# Not `-m`, which looks for modules in the current directory first: that may be anybody's.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from omnima.server.worker import main; main()"
)
_log = logging.getLogger("omnima.server")
_CALM = 60.0  # seconds of life after which a death counts as the first one again
_ENDING = 10.0  # seconds in which the process must end when it is asked to


class RemoteEngine:
    """An engine of another process; see :class:`omnima.server.jobs.EngineClient`.

    Parameters
    ----------
    opening
        Which model it opens.
    first_pause, longest_pause
        Seconds before it is started again: twice as many each time.
    stall_seconds
        After which a step that does not end is the end of the process; 0: never.
    """

    def __init__(
        self,
        opening: Opening,
        first_pause: float = 0.5,
        longest_pause: float = 30.0,
        stall_seconds: float = 300.0,
    ) -> None:
        self.context, self.vocab_size, self.memory_bytes = 0, 0, 0
        self.adapters: tuple[str, ...] = ()
        self.restarts = 0
        self._died: Callable[[], object] | None = None
        self._opening, self._pauses = opening, (first_pause, longest_pause)
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._unpacker = Unpacker()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._listener: Listener | None = None
        self._ready = False
        self._tasks: list[asyncio.Task[None]] = []
        self._watch, self._looks = Watch(stall_seconds), stall_seconds > 0

    async def start(self) -> None:
        """Start the process, and wait until the model is open.

        Raises
        ------
        ConfigError, OmnimaError
            It cannot be opened.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._unpacker = Unpacker()
        self._watch.begin()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._send(asdict(self._opening))
        first = await self._next_messages()
        if not first:
            raise OmnimaError("The engine's process ended while it opened the model.")
        if failed := first[0].get("failed"):
            kind = ConfigError if failed["config"] else OmnimaError
            raise kind(failed["message"])
        about = first[0]["ready"]
        self.context, self.vocab_size = about["context"], about["vocab_size"]
        self.adapters, self.memory_bytes = tuple(about["adapters"]), about["memory_bytes"]
        self._ready = True

    async def begin(self, listener: Listener, died: Callable[[], object]) -> None:
        """Hand events on; start the process where it does not run yet."""
        self._listener, self._died = listener, died
        if not self._ready:
            await self.start()
        self._tasks = [asyncio.create_task(self._live())]
        if self._looks:
            self._tasks.append(asyncio.create_task(self._look()))

    async def submit(self, tag: int, job: Job) -> None:
        """Take a job."""
        self._watch.submit(tag, job.grammar is not None)
        try:
            await self._call({"do": "submit", "tag": tag, "job": asdict(job)})
        except BaseException:
            self._watch.forget(tag)
            raise

    def cancel(self, tag: int) -> None:
        """End a job."""
        if self._ready:
            self._send({"do": "cancel", "tag": tag})

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        """Return the mean of the last hidden states."""
        found: list[float] = await self._call({"do": "embed", "ids": ids, "adapter": adapter})
        return found

    async def stats(self) -> dict[str, float]:
        """Return the scheduler's figures."""
        found: dict[str, float] = await self._call({"do": "stats"})
        return found

    async def close(self) -> None:
        """End the process: by asking it, and by force where it does not hear, as one that still
        opens its model.
        """
        if self._process is not None and not self._ready:
            self._process.kill()
        self._ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end()

    async def _live(self) -> None:
        """Hear the process; when it dies, tell so and start it again."""
        pause = self._pauses[0]
        while True:
            began = time.monotonic()
            try:
                while self._ready and (messages := await self._next_messages()):
                    for message in messages:
                        self._hear(message)
            except Exception as error:  # noqa: BLE001 - else nobody would hear it any more
                _log.error("The engine's process said what is not understood.", exc_info=error)
            self._lost()
            await self._end()
            if time.monotonic() - began > _CALM:
                pause = self._pauses[0]
            while not self._ready:
                _log.error("The engine's process died; it is started again in %.1f s.", pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._pauses[1])
                self.restarts += 1
                try:
                    await self.start()
                except (OmnimaError, OSError, ValueError) as error:
                    _log.error("The engine did not start: %s", error)
                    await self._end()

    async def _look(self) -> None:
        """End a process that answers no more, or whose steps do not end."""
        while True:
            await asyncio.sleep(self._watch.pause)
            if not self._ready:
                continue
            try:
                figures = await asyncio.wait_for(self.stats(), self._watch.pause)
            except asyncio.TimeoutError:
                figures = None
            except RequestError:  # it has died meanwhile
                continue
            if self._watch.stalls(figures):
                self._kill("does not go on")

    def _kill(self, why: str) -> None:
        """End the process, which is then started again."""
        _log.error("The engine %s: its process is ended.", why)
        self._watch.begin()
        if self._process is not None:
            self._process.kill()

    def _hear(self, message: dict[str, Any]) -> None:
        if "events" in message:
            assert self._listener is not None
            self._listener(message["events"])
            if self._watch.fails(message["events"]):
                self._kill("fails at every step")
            return
        waiting = self._calls.pop(message["call"], None)
        if waiting is None or waiting.done():
            return
        if told := message.get("error"):
            if detail := told.get("detail"):
                _log.error("The engine failed: %s", detail)
            error = RequestError(
                told["message"], told["status"], code=told["code"], retry_after=told["retry_after"]
            )
            waiting.set_exception(error)
        else:
            waiting.set_result(message.get("result"))

    def _lost(self) -> None:
        self._ready = False
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(engine_away())
        self._calls.clear()
        if self._died is not None:
            self._died()

    async def _call(self, message: dict[str, Any]) -> Any:
        if not self._ready:
            raise engine_away()
        number = next(self._numbers)
        waiting = asyncio.get_running_loop().create_future()
        self._calls[number] = waiting
        self._send({**message, "call": number})
        try:
            return await waiting
        finally:
            self._calls.pop(number, None)

    def _send(self, message: Any) -> None:
        assert self._writer is not None
        self._writer.write(packed(message))

    async def _next_messages(self) -> list[Any]:
        """The next messages, one or more; []: the process has gone."""
        assert self._reader is not None
        while True:
            try:
                data = await self._reader.read(1 << 16)
                found = self._unpacker.feed(data)
            except (ConnectionError, ValueError):
                return []
            if found or not data:
                return found

    async def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
        process = self._process
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, _ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
