"""What stands before every route: API keys, the rate of each, sizes, a log without prompts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from omnima.server.errors import RequestError, shutting_down
from omnima.server.keys import ApiKeys, foreign_header
from omnima.server.limits import Limits, RateLimiter
from omnima.server.metrics import Metrics

Message: TypeAlias = "MutableMapping[str, Any]"
Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("omnima.server")
# Routes that ask for no work: they want a key, are free of the rate, and are there to the end.
_UNCOUNTED = frozenset({"/health", "/ready", "/metrics"})


class Door:
    """Lets in who has a key, as often as that is allowed; of HTTP and gRPC together.

    Parameters
    ----------
    keys
        None: all are let in.
    limits
        How often.
    """

    def __init__(self, keys: ApiKeys | None, limits: Limits) -> None:
        self._keys, self._per_minute = keys, limits.requests_per_minute
        self._rates = RateLimiter(limits.requests_per_minute)

        self.closed = False

    def close(self) -> None:
        """Let nobody in any more who asks for work; who asks how things are still is."""
        self.closed = True

    @property
    def has_keys(self) -> bool:
        """Whether a key is wanted."""
        return self._keys is not None

    def enter(self, authorization: str, counts: bool = True) -> str:
        """Return whose key it is.

        Parameters
        ----------
        authorization
            What the request's head says.
        counts
            Whether it asks for work, and not only how things are.

        Raises
        ------
        RequestError
            Nobody's, too often, or the server ends.
        """
        who = "-"
        if self._keys is not None:
            kind, _, key = authorization.partition(" ")
            name = self._keys.name_of(key.strip() if kind.lower() == "bearer" else "")
            if name is None:
                raise RequestError(
                    "This server wants an API key that it knows: Authorization: Bearer KEY.",
                    401,
                    code="invalid_api_key",
                )
            who = name
        if counts and self.closed:
            raise shutting_down()
        if counts and (wait := self._rates.wait(who)):
            raise RequestError(
                f"More than {self._per_minute} requests a minute; the next one is taken in "
                f"{wait:.1f} seconds.",
                429,
                code="rate_limit",
                retry_after=wait + 0.5,
            )
        return who


class Guard:
    """An ASGI application around another one.

    With keys every route wants one, `/health` and `/metrics` too: whoever may ask is known. Without
    keys whoever is on this machine may ask, and a page of another site in its browser may not.
    """

    def __init__(self, app: App, door: Door, limits: Limits, metrics: Metrics) -> None:
        self._app, self._door, self._limits, self._metrics = app, door, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] != "http":  # what begins and ends the application; there are no websockets
            await self._app(scope, receive, send)
            return
        began, status, who = time.perf_counter(), 499, "-"
        # How to end a connection whose client does not read: a close would wait for it.
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        scope["omnima.abort"] = getattr(transport, "abort", None)

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            who = self._let_in(scope)
            await self._app(scope, receive, heard)
        except RequestError as error:
            await answer_error(error, heard)
        finally:
            if status >= 400:
                self._metrics.failed(status)
            seconds = time.perf_counter() - began
            path = scope["path"][:100]  # of the client: it must not write lines of its own
            _log.info("%s %s %r %d %.3fs", who, scope["method"], path, status, seconds)

    def _let_in(self, scope: Scope) -> str:
        """The name of the key; RequestError: not now, or not at all."""
        if not self._door.has_keys:
            _check_local(scope)
        length = _header(scope, b"content-length")
        key = _header(scope, b"authorization").decode("latin-1")
        who = self._door.enter(key, scope["path"] not in _UNCOUNTED)
        if length.isdigit() and int(length) > self._limits.body_bytes:
            raise too_large(self._limits)
        return who


async def read_body(receive: Receive, limits: Limits) -> bytes:
    """Read a request's body.

    Raises
    ------
    RequestError
        It is too large, or does not come.
    """
    try:
        return await asyncio.wait_for(_whole_body(receive, limits), limits.body_seconds)
    except asyncio.TimeoutError:
        raise RequestError(
            f"The body did not come within {limits.body_seconds:g} seconds.", 408
        ) from None


async def _whole_body(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("The client has gone.", 499)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise too_large(limits)
        if not message.get("more_body", False):
            return b"".join(parts)


def too_large(limits: Limits) -> RequestError:
    """The error of a body that is too large."""
    return RequestError(
        f"The body is larger than the limit of {limits.body_bytes} bytes.", 413, code="limit"
    )


async def answer_error(error: RequestError, send: Send, closes: bool = False) -> None:
    """Answer with an error as JSON; with `closes` that is the end of the connection."""
    body = error.body()
    length = (b"content-length", str(len(body)).encode())
    headers = [*error.headers(), length]
    if closes or error.status in (408, 413):  # what else the client sends is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _check_local(scope: Scope) -> None:
    """RequestError for what a browser sends on behalf of another site, or of another name that
    stands for this machine.
    """
    if (found := foreign_header(scope["headers"])) is not None:
        raise RequestError(
            f"Without API keys this server answers this machine alone: {found}, but it must be "
            "localhost, 127.0.0.1 or [::1]. Start the server with keys to let others in.",
            403,
            code="not_local",
        )


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")
