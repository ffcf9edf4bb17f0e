"""Random clients against a server for minutes: half of them misbehave, and nothing may be left.

`python benchmarks/soak.py MODEL --minutes 30 --clients 100` starts `omnima serve MODEL`, lets the
clients ask, go, read slowly and send nonsense, and prints one JSON object: answers by status (those
of the well-behaved apart), memory of both processes over time, and what is left running in the end.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_blocks")


class Soak:
    """The clients, and what they saw."""

    def __init__(self, url: str, ends: float) -> None:
        self.url, self.ends = url, ends
        self.good: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def behave(self, seed: int) -> None:
        """Ask, and read the whole answer."""
        draw = random.Random(seed)
        while time.monotonic() < self.ends:
            body = wish(draw)
            try:
                with self._open(body, 120) as answer:
                    text = answer.read()
                    status = str(answer.status)
                    whole = (
                        text.endswith(b"data: [DONE]\n\n") if body["stream"] else text[:1] == b"{"
                    )
                    if not whole or b'"error":' in text:
                        self._wrong(f"half an answer: {text[-200:]!r}")
            except urllib.error.HTTPError as error:
                status = str(error.code)
                if error.code == 429:
                    time.sleep(0.2)
                else:
                    self._wrong(f"{error.code}: {error.read()[:200]!r}")
            except OSError as error:
                status = type(error).__name__
                self._wrong(f"{status}: {error}")
            with self._lock:
                self.good[status] += 1

    def misbehave(self, seed: int) -> None:
        """Go early, read slowly, send half a request or nonsense."""
        draw = random.Random(seed)
        host, port = self.url.removeprefix("http://").split(":")
        while time.monotonic() < self.ends:
            kind = draw.choice(["go", "slow", "half", "nonsense", "wrong"])
            with self._lock:
                self.bad[kind] += 1
            try:
                with socket.create_connection((host, int(port)), timeout=20) as channel:
                    self._do(kind, channel, draw)
            except OSError:
                # The server ends the connections of clients who misbehave: to be cut off is right
                # here, and that others are not is what behave() looks at.
                continue

    def _do(self, kind: str, channel: socket.socket, draw: random.Random) -> None:
        data = json.dumps({**wish(draw), "n": draw.randint(1, 4)}).encode()
        if kind == "wrong":
            data = data[: draw.randrange(len(data))]
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(data)}\r\n\r\n"
        if kind == "nonsense":
            channel.sendall(draw.randbytes(draw.randint(1, 5000)))
            channel.recv(1000)
        elif kind == "half":
            channel.sendall(head.encode() + data[: len(data) // 2])
            time.sleep(draw.random() * 3)
        elif kind == "slow":
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            channel.sendall(head.encode() + data)
            for _ in range(draw.randint(1, 40)):
                if not channel.recv(20):
                    break
                time.sleep(0.05)
        else:
            channel.sendall(head.encode() + data)
            if draw.random() < 0.7:
                channel.recv(draw.randint(1, 3000))
            time.sleep(draw.random() / 5)

    def _open(self, body: dict[str, Any], timeout: float) -> Any:
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode())
        return urllib.request.urlopen(request, timeout=timeout)

    def _wrong(self, said: str) -> None:
        with self._lock:
            self.wrong.append(said)

    def left(self) -> dict[str, float]:
        """What the server says that it still does."""
        text = urllib.request.urlopen(self.url + "/metrics", timeout=30).read().decode()
        return {
            name: float(found[1])
            for name in GAUGES
            if (found := re.search(rf"^omnima:{name}{{.*}} (\S+)$", text, re.M))
        }


def wish(draw: random.Random) -> dict[str, Any]:
    """A request."""
    return {
        "prompt": "Once upon a time " * draw.randint(1, 20),
        "max_tokens": draw.randint(1, 64),
        "temperature": draw.choice([0, 1]),
        "stream": draw.random() < 0.7,
    }


def memory_of(pid: int) -> dict[str, float]:
    """MB of a server's process and of its engine's."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {"server": resident(pid)}
    for child in children:
        if b"omnima.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found["engine"] = resident(int(child))
    return found


def resident(pid: int) -> float:
    """MB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def main() -> None:
    """Soak, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=100)
    given = parser.parse_args()
    words = [sys.executable, "-m", "omnima", "serve", given.model, "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split(" at ")[1].split(" ")[0]
    soak = Soak(url, time.monotonic() + 60 * given.minutes)
    threads = [
        threading.Thread(target=soak.behave if each % 2 else soak.misbehave, args=[each])
        for each in range(given.clients)
    ]
    for each in threads:
        each.start()
    memory = []
    while time.monotonic() < soak.ends:
        time.sleep(min(15.0, 60 * given.minutes / 4))
        memory.append(memory_of(process.pid))
    for each in threads:
        each.join()
    end = time.monotonic() + 60
    while any(soak.left().values()) and time.monotonic() < end:
        time.sleep(0.2)
    result = {
        "well-behaved": dict(soak.good),
        "misbehaving": dict(soak.bad),
        "wrong": soak.wrong[:10],
        "left": soak.left(),
        "memory_mb": memory,
    }
    process.terminate()
    print(json.dumps({**result, "status": process.wait(60)}))


if __name__ == "__main__":
    main()
