"""`omnima serve`: one line when ready, an engine that is started again, and 0 after draining."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import omnima
from omnima.errors import ConfigError
from omnima.server import EngineOptions, Limits, remote, running
from omnima.server.command import Serving, adapters_of, name_of
from omnima.server.engine import LocalEngine

from .conftest import made
from .http import ask, connect, until

READY = re.compile(
    r"^(\S+) is served at (http://127\.0\.0\.1:\d+) and by gRPC on port \d+ for this machine, "
    r"with (\d+) MB for keys and values\.$"
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directories of the model and of its adapter."""
    folder = tmp_path_factory.mktemp("served")
    model = made()
    model.save_adapter(folder / "poet", "bard")
    model.set_adapters({})
    model.save_pretrained(folder / "small")
    return folder / "small", folder / "poet"


def start(*options: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "omnima", "serve", *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    found = []
    for each in text.split():
        try:
            if b"omnima.server.worker" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(int(each))
        except OSError:
            pass
    return found


def told_while_the_engine_dies(url: str, body: dict[str, Any], server: int) -> list[int]:
    """What clients who go on asking are told when the engine is killed while it writes.

    They ask until one of them is told that the engine is away: on a quick machine any one request
    may have ended before the kill.
    """
    told: list[int] = []
    end = time.monotonic() + 60

    def client() -> None:
        while 503 not in told and time.monotonic() < end:
            told.append(ask(url, "/v1/completions", body)[0])

    threads = [threading.Thread(target=client) for _ in range(4)]
    for each in threads:
        each.start()
    assert until(lambda: ask(url, "/health")[1].get("running", 0) > 0)
    [worker] = children(server)
    os.kill(worker, signal.SIGSTOP)  # what has begun cannot end any more
    os.kill(worker, signal.SIGKILL)
    for each in threads:
        each.join()
    assert until(lambda: children(server) not in ([], [worker]))
    return told


def streamed_while_the_server_ends(url: str, body: dict[str, Any], server: Any) -> list[Any]:
    """The pieces of a text of which the first one had come when the server was told to end.

    They are more than what lies in buffers on the way holds, so that some are still unwritten.
    """
    with connect(url, {**body, "stream": True, "stream_options": {"include_usage": True}}) as wire:
        said = wire.recv(100)
        server.send_signal(signal.SIGTERM)
        while part := wire.recv(1 << 20):
            said += part
    head, _, _ = said.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    lines = re.findall(rb"^data: (.*)$", said, re.M)
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_the_life_of_a_server(places: tuple[Path, Path], tmp_path: Path) -> None:
    model, adapter = places
    words = [str(model), "--adapter", f"poet={adapter}", "--port", "0", "--grpc-port", "0", "--log"]
    with (tmp_path / "log").open("w+") as log, start(*words, stderr=log) as process:
        try:
            live(process)
        finally:
            process.kill()
        log.seek(0)
        text = log.read()
    assert "POST '/v1/completions' 200" in text and "To be" not in text


def live(process: subprocess.Popen[str]) -> None:
    """All that a server goes through, from its first line to its last."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = READY.match(line)
    assert found is not None, line
    url = found[2]
    assert found[1] == "small"
    held = ask(url, "/health")[1]["memory_bytes"]
    assert held > 256 << 20 and int(found[3]) == round(held / 1e6)
    names = {each["id"] for each in ask(url, "/v1/models")[1]["data"]}
    assert names == {"small", "poet"}
    body = {"prompt": "To be", "temperature": 0, "max_tokens": 8}
    before = ask(url, "/v1/completions", {**body, "model": "poet"})[1]["choices"]
    assert before != ask(url, "/v1/completions", body)[1]["choices"]
    assert len(ask(url, "/v1/embeddings", {"input": "a"})[1]["data"][0]["embedding"]) == 64
    bad = {"prompt": "a", "response_format": {"type": "regex", "pattern": "("}}
    assert ask(url, "/v1/completions", bad)[0] == 400

    # The engine dies while many write: they are told so, and it comes back.
    told = told_while_the_engine_dies(url, {**body, "max_tokens": 500, "n": 16}, process.pid)
    assert 503 in told and set(told) <= {200, 503}
    status, answer, _ = ask(url, "/health")
    assert (status, "error" in answer) in ((503, True), (200, False))
    assert until(lambda: ask(url, "/health")[0] == 200)
    assert ask(url, "/v1/completions", {**body, "model": "poet"})[1]["choices"] == before
    restarts = re.search(r"^omnima:engine_restarts\{.*\} (\S+)$", ask(url, "/metrics")[1], re.M)
    assert restarts is not None and float(restarts[1]) >= 1

    # What has begun is written to its end.
    many = {**body, "max_tokens": 400, "n": 16, "logprobs": 20}
    pieces = streamed_while_the_server_ends(url, many, process)
    assert pieces[-1]["usage"]["completion_tokens"] == 6400
    choices = [choice for each in pieces for choice in each["choices"] if choice["logprobs"]]
    assert sum(len(choice["logprobs"]["tokens"]) for choice in choices) == 6400
    assert process.wait(60) == 0
    assert process.stdout.read() == ""


def test_a_second_signal_does_not_wait_for_texts(places: tuple[Path, Path]) -> None:
    """Whose client does not read: a first signal would wait for it."""
    with start(str(places[0]), "--port", "0", stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+) for this machine", line)
            assert found is not None, line
            url = found[1]
            body = {"prompt": "To be", "temperature": 0, "max_tokens": 500, "n": 16}
            with connect(url, {**body, "logprobs": 20, "stream": True}) as wire:
                assert wire.recv(100)
                process.send_signal(signal.SIGINT)
                assert until(lambda: is_draining(url))
                process.send_signal(signal.SIGTERM)
                assert process.wait(25) == 0  # without the second, thirty seconds
        finally:
            process.kill()


SLOW = {
    "engine": """
from omnima.server import remote
remote._PROGRAM = "import sys, time; print('opens', file=sys.stderr, flush=True); time.sleep(600)"
""",
    "tokenizer": """
import omnima.hub
def opens(_):
    print("opens", file=sys.stderr, flush=True)
    time.sleep(600)
omnima.hub.open_tokenizer = opens
""",
}


@pytest.mark.parametrize("slow", list(SLOW))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_is_opened_ends_all_at_once(
    places: tuple[Path, Path], slow: str, number: signal.Signals
) -> None:
    """The engine's process, too: it holds standard error, which ends with it."""
    program = f"import sys, time\n{SLOW[slow]}\nfrom omnima.cli import main\nmain(sys.argv[1:])"
    words = [sys.executable, "-c", program, "serve", str(places[0]), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "opens\n"
            process.send_signal(number)
            assert process.communicate(timeout=60) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to serve on")
def test_a_device_that_is_not_there_is_said(places: tuple[Path, Path]) -> None:
    with start(str(places[0]), "--port", "0", "--device", "cuda") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and out == ""
    assert "device is 'cuda', but torch" in err and "Take device cpu" in err
    assert len(err.splitlines()) == 1


def is_draining(url: str) -> bool:
    """Whether no more requests are taken."""
    try:
        return ask(url, "/ready")[0] == 503
    except OSError:
        return True


@pytest.mark.parametrize(
    "options,said",
    [
        (["nowhere", "--port", "0"], "nowhere"),
        (["{model}", "--port", "0", "--host", "0.0.0.0"], "make API keys"),
        (["{model}", "--port", "0", "--api-keys", "nofile"], "nofile"),
        (["{model}", "--port", "0", "--adapter", "x"], "NAME=DIR"),
        (["{model}", "--port", "0", "--format", "int3"], "int3"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    places: tuple[Path, Path], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnima.cli import main

    with pytest.raises(SystemExit) as left:
        main(["serve", *[each.format(model=places[0]) for each in options]])
    assert left.value.code == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and said in line and "\n" not in line


def test_a_key_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from omnima.cli import main
    from omnima.server import ApiKeys

    with pytest.raises(SystemExit):
        main(["api-key", str(tmp_path / "keys"), "--name", "anna"])
    key = capsys.readouterr().out.strip()
    assert ApiKeys.read(tmp_path / "keys").name_of(key) == "anna"


def test_names() -> None:
    assert name_of("owner/model@main") == "model"
    with pytest.raises(ConfigError, match="twice"):
        adapters_of(["a=b", "a=c"])


def test_what_is_drained_shares_its_time(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP has what gRPC has left of it, so that the end comes when it is said to."""
    given: list[float] = []

    class Calls:
        async def stop(self, seconds: float) -> None:
            given.append(seconds)
            await asyncio.sleep(2.5)

    async def serving(server: Any, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not server.should_exit:
            await asyncio.sleep(0.01)
        given.append(server.config.timeout_graceful_shutdown)

    async def main() -> None:
        assert model.tokenizer is not None
        engine = LocalEngine(model, EngineOptions(), [2])
        try:
            app, state = running.assembled(engine, model.tokenizer, "tiny", Limits(), None)
            with socket.socket() as unused:
                await running.serve_here(app, state, unused, Limits(), 10.0, print, Calls())
            assert state.draining
        finally:
            await engine.close()

    monkeypatch.setattr(running, "serving", serving)
    asyncio.run(main())
    assert given[0] == 10.0 and 1 <= given[1] <= 8


def test_a_container_has_the_time_that_an_end_takes() -> None:
    """That of requests, and then that of the engine's process."""
    compose = Path(__file__).resolve().parents[3] / "deploy" / "compose.yaml"
    about = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]["omnima"]
    grace = float(about["stop_grace_period"].removesuffix("s"))
    assert grace >= Serving("x").drain_seconds + remote._ENDING + 5
