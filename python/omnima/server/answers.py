"""How answers reach clients: whole, or piece by piece as they are written.

Two tasks serve a request: one sends what comes, the other hears whether the client has gone.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response

from omnima.server.errors import RequestError
from omnima.server.forms import Form
from omnima.server.guard import Receive, Scope, Send, answer_error
from omnima.server.service import Piece, Run

_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Answer(Response, ABC):
    """An answer that ends its run when the client goes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.background: BackgroundTask | None = None
        self.status_code = 200

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer."""
        listening = asyncio.create_task(self._until_gone(receive))
        try:
            await self.answer(scope, send)
        finally:
            listening.cancel()
            self.run.cancel()

    @abstractmethod
    async def answer(self, scope: Scope, send: Send) -> None:
        """Send what comes."""

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.run.fail(RequestError("The client has gone.", 499))


class WholeAnswer(Answer):
    """One JSON object, when all is written.

    Parameters
    ----------
    run
        What is written.
    made
        Makes the object of the run and its pieces.
    """

    def __init__(self, run: Run, made: Callable[[Run, list[Piece]], bytes]) -> None:
        super().__init__(run)
        self._made = made

    async def answer(self, scope: Scope, send: Send) -> None:
        """Wait for the last piece, then send."""
        pieces: list[Piece] = []
        try:
            while more := await self.run.next():
                pieces += more
        except RequestError as error:
            await answer_error(error, send)
            return
        body = self._made(self.run, pieces)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class StreamAnswer(Answer):
    """Server-sent events, a piece as soon as it is written.

    The head is sent with the first piece, so that an error before it has a status of its own.

    Parameters
    ----------
    run
        What is written.
    form
        Of the pieces.
    patience
        Seconds that a client may take to read what it was sent.
    """

    def __init__(self, run: Run, form: Form, patience: float) -> None:
        super().__init__(run)
        self._form, self._patience = form, patience
        self._sending = 0.0  # since when a piece is being sent; 0: none is

    async def answer(self, scope: Scope, send: Send) -> None:
        """Send the pieces."""
        watching = asyncio.create_task(self._watch(scope.get("omnima.abort")))
        started = False
        try:
            while more := await self.run.next():
                body = b"".join(map(self._form.piece, more))
                if not started:
                    await self._begin(send)
                    body, started = self._form.opening() + body, True
                if body:
                    await self._send(send, body, True)
            await self._send(send, self._form.closing(self.run), False)
        except RequestError as error:
            if not started:
                await answer_error(error, send)
            elif error.status != 499:
                await self._send(send, b"data: " + error.body() + b"\n\n", False)
            elif abort := scope.get("omnima.abort"):
                abort()
        finally:
            watching.cancel()

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM})

    async def _send(self, send: Send, body: bytes, more: bool) -> None:
        self._sending = time.monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending = 0.0

    async def _watch(self, abort: Callable[[], object] | None) -> None:
        """End the connection of a client who does not read: what waits for it is let go."""
        while True:
            await asyncio.sleep(self._patience / 4)
            if self._sending and time.monotonic() - self._sending > self._patience:
                self.run.fail(RequestError("The client does not read.", 499))
                if abort is not None:
                    abort()
                return
