"""Connections of which each request's head must come soon and be small.

Heads are read before any key is looked at, so whoever can connect could hold a connection, or fill
the memory, with a head that never ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
from abc import ABC, abstractmethod
from typing import Any

from omnima.server.errors import RequestError
from omnima.server.guard import App, Receive, Scope, Send, answer_error
from omnima.server.limits import Limits


class _Owing(ABC):
    """Ends a connection whose client owes the rest of a head, or of a body nobody reads, for too
    long, and answers one that is too many with an error. Stands before one of uvicorn's protocols.
    """

    limits: Limits
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    cycle: Any
    connections: set[Any]  # all that are open, this one too
    tasks: set[Any]  # what answers requests
    app: App
    _timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def owes(self) -> bool:
        """Whether something has begun that the client alone can end."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first head."""
        super().connection_made(transport)  # type: ignore[misc]
        most = self.limits.connections
        if len(self.connections) > most or len(self.tasks) >= most:
            self.app = _refuse
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._calm()
        super().connection_lost(exc)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Look whether the head is complete with this."""
        super().data_received(data)  # type: ignore[misc]
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was not read."""
        super().on_response_complete()  # type: ignore[misc]
        self._look()

    def _look(self) -> None:
        if self.transport.is_closing() or not self.owes():
            self._calm()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.limits.head_seconds, self._late)

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:  # an answer is being written, and the beginning of another request has come
            self._look()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers on a connection that is too many."""
    said = "The server has as many connections as it takes: try again later."
    error = RequestError(said, 503, code="connections", retry_after=1)
    await answer_error(error, send, closes=True)


def protocol_for(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol of HTTP, with these limits: that of httptools, else of h11."""
    if importlib.util.find_spec("httptools") is not None:
        return _of_httptools(limits)
    return _of_h11(limits)


def _of_httptools(wanted: Limits) -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Protocol(_Owing, HttpToolsProtocol):  # type: ignore[misc]
        limits = wanted
        _place = "head"  # of the request that is read: "head", "body", or "" between two
        _heads = 0  # that have begun
        _size = 0  # bytes of the head so far, but for its last part

        def owes(self) -> bool:
            if self._place == "body":
                return bool(self.cycle.response_complete)
            return self._place == "head"

        def data_received(self, data: bytes) -> None:
            between, before = not self._place, self._heads
            super().data_received(data)
            if between and self._heads == before:  # an empty line begins no request
                self._place = "head"
                self._look()
            if self._place == "head":
                self._size += len(data)
                if self._size > wanted.head_bytes:
                    self.transport.abort()

        def on_message_begin(self) -> None:
            self._place, self._size, self._heads = "head", 0, self._heads + 1
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._place, self._size = "body", 0
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._place = ""
            super().on_message_complete()

    return Protocol


def _of_h11(wanted: Limits) -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(_Owing, H11Protocol):  # type: ignore[misc]
        # h11 itself bounds the bytes of a head.
        limits = wanted

        def owes(self) -> bool:
            if self.conn.their_state is h11.SEND_BODY:
                return self.cycle is not None and bool(self.cycle.response_complete)
            begun = self.cycle is None or bool(self.conn.trailing_data[0])
            return self.conn.their_state is h11.IDLE and begun

    return Protocol
