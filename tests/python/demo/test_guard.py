"""Who may ask the page for what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omnima.demo.guard import BODY_BYTES, Guard, TooLarge

HERE = [(b"host", b"127.0.0.1:7860")]


def asked(
    path: str, headers: Any = HERE, body: bytes = b"", kind: str = "http", early: bool = False
) -> list[dict[str, Any]]:
    """What is sent for a request; the application behind reads the body and answers 200."""
    sent: list[dict[str, Any]] = []
    hello = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if early:
            await send(dict(hello))
        await receive()
        await receive()
        if not early:
            await send(dict(hello))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(Guard(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css",
        "/assets/index-a_b.js",
        "/static/js/a.min.js",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/abc12",
    ],
)
def test_the_page_gets_what_it_asks_for(path: str) -> None:
    [start] = asked(path)
    assert start["status"] == 200
    policy = dict(start["headers"])[b"content-security-policy"]
    assert b"default-src 'self'" in policy and b"http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/run/predict",
        "/gradio_api/call/say",
        "/gradio_api/vibe-edit",
        "/assets/../../etc/passwd",
        "/static/%2e%2e/x",
        "/docs",
        "/monitoring",
        "/login",
    ],
)
def test_nothing_else_is_answered(path: str) -> None:
    assert asked(path)[0]["status"] == 404


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"evil.example")],
        [*HERE, (b"origin", b"https://evil.example")],
        [*HERE, (b"origin", b"null")],
        [*HERE, (b"origin", b"http://127.0.0.1:3000")],
        [*HERE, (b"origin", b"http://localhost:7860")],
    ],
)
def test_pages_of_others_are_refused(headers: Any) -> None:
    assert asked("/", headers)[0]["status"] == 403
    for host in (b"127.0.0.1:7860", b"localhost:7860"):
        headers = [(b"host", host), (b"origin", b"http://" + host)]
        assert asked("/", headers)[0]["status"] == 200


def test_bodies_are_bounded() -> None:
    assert asked("/gradio_api/queue/join", body=b"a" * (BODY_BYTES // 2 + 1))[0]["status"] == 413
    with pytest.raises(TooLarge):
        asked("/gradio_api/queue/join", body=b"a" * (BODY_BYTES // 2 + 1), early=True)


def test_what_is_no_request_passes_or_is_closed() -> None:
    assert asked("/", kind="lifespan")[0]["status"] == 200
    assert asked("/", kind="websocket")[0]["type"] == "websocket.close"
