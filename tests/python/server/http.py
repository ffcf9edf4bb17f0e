"""Plain requests, for what the official client would not send."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlparse

from omnima.server import Server


def ask(
    server: Server | str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """Return status, body (JSON where it is) and head of an answer."""
    url = server if isinstance(server, str) else server.url
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            found, status, head = answer.read(), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            found, status, head = error.read(), error.code, error.headers
    try:
        return status, json.loads(found), head
    except ValueError:
        return status, found.decode(), head


def connect(server: Server | str, body: Any, path: str = "/v1/completions") -> socket.socket:
    """Send a request and leave its answer unread."""
    there = urlparse(server if isinstance(server, str) else server.url)
    assert there.hostname is not None
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.settimeout(60)
    channel.connect((there.hostname, there.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    channel.sendall(head.encode() + data)
    return channel


def running(server: Server) -> int:
    """Texts that the engine is writing or has waiting, and blocks that it holds for such."""
    _, text, _ = ask(server, "/metrics")
    return sum(
        int(float(line.split()[-1]))
        for line in text.splitlines()
        if line.startswith(
            (
                "omnima:num_requests_running{",
                "omnima:num_requests_waiting{",
                "omnima:kv_cache_blocks{",
            )
        )
    )


def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether something becomes true in time; the bound is for a slow machine that is busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return true()
