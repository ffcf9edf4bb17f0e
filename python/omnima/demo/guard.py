"""What stands before Gradio: this machine alone, a page that loads nothing from elsewhere, and none
of the routes that would open files, addresses or more than the page asks for.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from omnima.demo.training import TEXT_BYTES
from omnima.server.keys import foreign_header

Message: TypeAlias = "MutableMapping[str, Any]"
Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# JSON writes a byte of text as six at worst, and a page sends its text with what else it asks.
BODY_BYTES = 6 * TEXT_BYTES + (1 << 20)
# What the page itself asks for. Uploads, files, proxies and Gradio's own tools are not among it.
_ROUTES = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(static|assets|svelte)/[\w./@+-]*"
    r"|gradio_api/(startup-events|heartbeat/\w+|queue/(join|data)/?|cancel|reset/?|theme\.css))?"
)
# Gradio's frontend makes functions of texts that this server sends.
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class TooLarge(Exception):
    """A request's body is larger than any that the page sends."""


class Guard:
    """An ASGI application around Gradio's."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
                return
            await self._app(scope, receive, send)
            return
        found = foreign_header(scope["headers"]) or _other_origin(scope["headers"])
        if found is not None:
            await _refuse(send, 403, f"This page is for this machine alone: {found}.")
            return
        if ".." in scope["path"] or not _ROUTES.fullmatch(scope["path"]):
            await _refuse(send, 404, "There is nothing here.")
            return
        started = False

        async def told(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, _bounded(receive), told)
        except TooLarge:
            if started:
                raise
            await _refuse(send, 413, f"A request has at most {BODY_BYTES} bytes.")


def _other_origin(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Say that a request comes from a page of another port; None: from this page, or from none."""
    known = dict(headers)
    origin = known.get(b"origin")
    host = known.get(b"host", b"").decode("latin-1").lower()
    if origin is None or urlsplit(origin.decode("latin-1")).netloc.lower() == host:
        return None
    return f"Origin is {origin.decode('latin-1')!r:.80}, another page than {host!r:.80}"


def _bounded(receive: Receive) -> Receive:
    size = 0

    async def heard() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_BYTES:
            raise TooLarge
        return message

    return heard


async def _refuse(send: Send, status: int, why: str) -> None:
    body = why.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
