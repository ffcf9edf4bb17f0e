"""Clients who never end a head, before any key is looked at."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import omnima
from omnima.server import Limits, Server, new_key

from .http import ask, until

KINDS = ["httptools", "h11"]
EMBED = (
    b'POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"input":"a"}'
)


def choose(patch: pytest.MonkeyPatch, kind: str) -> None:
    """Have servers made with one of the two protocols."""
    find = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return None if name == "httptools" and kind == "h11" else find(name, *more)

    patch.setattr(importlib.util, "find_spec", found)


@pytest.fixture(scope="module", params=KINDS)
def strict(
    model: omnima.Model, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with keys, little patience and few connections; of each kind of protocol."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    new_key(keys, "anna")
    limits = Limits(head_seconds=0.4, connections=5)
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, request.param)
        running = omnima.serve(model, api_keys=keys, limits=limits)
    with running:
        yield running


def connected(server: Server, sent: bytes) -> socket.socket:
    channel = socket.create_connection((server.host, server.port), timeout=30)
    channel.sendall(sent)
    return channel


def is_over(channel: socket.socket) -> bool:
    """Whether the other side ends the connection, whatever it says before."""
    try:
        while channel.recv(1 << 16):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-a: ",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
    ],
    ids=["nothing", "half", "another", "body"],
)
def test_what_does_not_come_is_not_waited_for(strict: Server, sent: bytes) -> None:
    channels = [connected(strict, sent) for _ in range(5)]
    try:
        before = time.monotonic()
        assert all(map(is_over, channels))
        # Before uvicorn would end an idle connection, after five seconds.
        assert time.monotonic() - before < 4
        assert until(lambda: ask(strict, "/health")[0] == 401)
    finally:
        for each in channels:
            each.close()


def test_an_empty_line_begins_no_request_that_is_waited_for(strict: Server) -> None:
    with connected(strict, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as channel:
        heard = b""
        while b'"code": "invalid_api_key"' not in heard:
            heard += channel.recv(1 << 16)
        before = time.monotonic()
        channel.sendall(b"\r\n")
        assert is_over(channel) and time.monotonic() - before < 4


def test_drops_are_no_progress(strict: Server) -> None:
    with connected(strict, b"GET /health HTTP/1.1\r\nX-a: ") as channel:
        before = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - before < 20:
                channel.sendall(b"a")
                time.sleep(0.05)


def test_a_large_head_is_not_kept(strict: Server) -> None:
    with connected(strict, b"GET /health HTTP/1.1\r\nX-a: ") as channel:
        sent = 0
        try:
            while sent < 64 << 20:
                channel.sendall(b"a" * (1 << 18))
                sent += 1 << 18
        except ConnectionError:
            pass
        assert sent < 16 << 20  # what lies in buffers on the way


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_too_many_is_told_so(
    model: omnima.Model, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, kind)
    with omnima.serve(model, limits=Limits(connections=2)) as server:
        with connected(server, b""), connected(server, b""):
            status, answer, head = ask(server, "/health")
            assert status == 503 and answer["error"]["code"] == "connections"
            assert int(head["retry-after"]) >= 1 and head["connection"] == "close"
        assert until(lambda: ask(server, "/health")[0] == 200)


@pytest.mark.parametrize("kind", KINDS)
def test_patient_answers_are_not_cut(
    model: omnima.Model, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests follow each other on a connection, with pauses between them, and with answers that
    take longer than a head may; one begins while the answer before it is being written.
    """
    patience = 0.5
    done = threading.Event()

    async def embed(ids: list[int], adapter: str | None) -> list[float]:
        while not done.is_set():
            await asyncio.sleep(0.01)
        return [0.0]

    choose(monkeypatch, kind)
    with omnima.serve(model, limits=Limits(head_seconds=patience)) as server:
        monkeypatch.setattr(server._state.service.engine, "embed", embed)
        with connected(server, b"") as channel:
            for _ in range(2):
                channel.sendall(EMBED + b"GET /health HTTP/1.1\r\n")
                time.sleep(2.5 * patience)
                channel.sendall(b"Host: localhost\r\n\r\n")
                time.sleep(patience / 5)
                done.set()
                heard = b""
                while not heard.endswith(b"}") or heard.count(b"HTTP/1.1 200") < 2:
                    part = channel.recv(1 << 16)
                    assert part, heard
                    heard += part
                assert heard.index(b'"embedding"') < heard.index(b'"status"')
                done.clear()
                time.sleep(2 * patience)
