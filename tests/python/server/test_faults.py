"""Clients that go, that do not read, that go wrong: their places are free at once, others see
nothing of it."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import omnima
from omnima.server import EngineOptions, Limits, Server

from .http import ask, connect, running, until

LONG = {"model": "tiny", "prompt": "a", "max_tokens": 500, "temperature": 0}


@pytest.fixture(scope="module")
def slow(model: omnima.Model) -> Iterator[Server]:
    """A server that lets little wait for those who do not read."""
    limits = Limits(slow_reader_characters=2000, slow_reader_seconds=0.4)
    options = EngineOptions(max_sequences=4)
    with omnima.serve(model, name="tiny", limits=limits, options=options) as server:
        yield server


def cancelled(server: Server) -> float:
    _, text, _ = ask(server, "/metrics")
    lines = [line for line in text.splitlines() if 'finished_reason="cancelled"' in line]
    return sum(float(line.split()[-1]) for line in lines if "_created" not in line)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_place(slow: Server, stream: bool) -> None:
    before = cancelled(slow)
    for _ in range(5):
        with connect(slow, {**LONG, "n": 16, "stream": stream}) as channel:
            if stream:
                channel.recv(100)
    # They did not run to their end.
    assert until(lambda: cancelled(slow) > before and running(slow) == 0)


def test_texts_to_embed_end_with_their_client(
    slow: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    async def embed(ids: list[int], adapter: str | None) -> list[float]:
        read.append(1)
        await asyncio.sleep(0.05)
        return [0.0]

    monkeypatch.setattr(slow._state.service.engine, "embed", embed)
    with connect(slow, {"input": ["a"] * 100}, "/v1/embeddings"):
        assert until(lambda: len(read) > 1)

    def is_over() -> bool:
        count = len(read)
        time.sleep(0.5)
        return len(read) == count

    assert until(is_over) and len(read) < 100


def test_a_client_that_does_not_read_is_let_go(slow: Server) -> None:
    body = {**LONG, "n": 16, "stream": True, "logprobs": 20}
    before = cancelled(slow)
    channels = [connect(slow, body) for _ in range(3)]
    try:
        # Of each at least one text was ended before its end, and nothing of any is left.
        assert until(lambda: cancelled(slow) >= before + 3 and running(slow) == 0)
        assert ask(slow, "/v1/completions", {**LONG, "max_tokens": 3})[0] == 200
    finally:
        for each in channels:
            each.close()


def test_a_client_that_does_not_read_in_time_is_let_go(
    model: omnima.Model, caplog: pytest.LogCaptureFixture
) -> None:
    """However little it is that waits for it."""
    limits = Limits(slow_reader_characters=1 << 30, slow_reader_seconds=0.4)
    with omnima.serve(model, name="tiny", limits=limits) as server:
        body = {**LONG, "n": 16, "stream": True, "logprobs": 20}
        with caplog.at_level("INFO", "omnima.server"), connect(server, body) as channel:
            assert until(lambda: "/v1/completions" in caplog.text)  # it has been dealt with
            said = b""
            while part := rest(channel):
                said += part
    assert b"data: " in said and b"[DONE]" not in said


def rest(channel: socket.socket) -> bytes:
    """What has come, b"" at the end of the connection, however it ends."""
    try:
        return channel.recv(1 << 20)
    except ConnectionError:
        return b""


def test_a_body_whose_client_has_gone_is_no_failure(slow: Server) -> None:
    gone = re.compile(r'^omnima:request_errors_total\{.*status="499"\} (\S+)$', re.M)

    def count() -> float:
        found = gone.search(ask(slow, "/metrics")[1])
        return float(found[1]) if found else 0.0

    before = count()
    with socket.create_connection((slow.host, slow.port)) as channel:
        channel.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    assert until(lambda: count() > before)


def test_a_failure_of_ours_is_for_the_log(
    slow: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def embed(*_: Any) -> list[float]:
        raise KeyError("a secret")

    monkeypatch.setattr(slow._state.service.engine, "embed", embed)
    status, answer, _ = ask(slow, "/v1/embeddings", {"input": "a"})
    assert status == 500 and "secret" not in answer["error"]["message"]
    assert "a secret" in caplog.text


def test_a_server_that_drains_is_well_but_not_ready(
    slow: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(slow, "/ready")[0] == 200
    monkeypatch.setattr(slow._state.door, "closed", True)
    assert ask(slow, "/ready")[0] == 503 and ask(slow, "/health")[0] == 200
    assert ask(slow, "/metrics")[0] == 200
    for path, body in (("/v1/completions", LONG), ("/tokenize", {"prompt": "a"})):
        status, answer, head = ask(slow, path, body)
        assert status == 503 and int(head["retry-after"]) >= 1
        assert answer["error"]["code"] == "shutting_down"


def test_an_error_of_one_ends_no_other(slow: Server) -> None:
    expected = ask(slow, "/v1/completions", {**LONG, "max_tokens": 200})[1]["choices"][0]["text"]
    found: list[str] = []

    def good() -> None:
        answer = ask(slow, "/v1/completions", {**LONG, "max_tokens": 200})
        found.append(answer[1]["choices"][0]["text"])

    def bad() -> None:
        for body in ({"prompt": 1}, {"prompt": "a", "n": 10**9}, b"\x00", {"prompt": [10**9]}):
            assert ask(slow, "/v1/completions", body)[0] == 400

    threads = [threading.Thread(target=each) for each in (good, bad, good, bad)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [expected] * 2


def test_random_clients_leave_nothing_behind(slow: Server) -> None:
    """Some read all, some a part, some nothing; some ask for what there is not."""
    end = time.monotonic() + 3
    wrong: list[Any] = []

    def client(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < end:
            body = {
                **LONG,
                "prompt": "to be " * draw.randint(1, 40),
                "max_tokens": draw.randint(1, 100),
                "n": draw.randint(1, 3),
                "stream": draw.random() < 0.7,
                "temperature": draw.choice([0, 1]),
                "model": draw.choice(["tiny", "tiny", "none"]),
            }
            if draw.random() < 0.4:
                status = ask(slow, "/v1/completions", body)[0]
                if status not in (200, 404, 429):
                    wrong.append(status)
            else:
                with connect(slow, body) as channel:
                    if draw.random() < 0.7:
                        channel.recv(draw.randint(1, 2000))
                    time.sleep(draw.random() / 50)

    threads = [threading.Thread(target=client, args=[seed]) for seed in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    assert until(lambda: running(slow) == 0)
    assert ask(slow, "/health")[0] == 200


def test_a_server_that_is_left_running_ends_with_its_program() -> None:
    program = (
        "import omnima\n"
        "model = omnima.Model.from_preset('nima', vocab_size=259, max_position_embeddings=128)\n"
        "model.tokenizer = omnima.Tokenizer.train(['to be'], 'byte')\n"
        "print(omnima.serve(model).port)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr
