"""`omnima serve`: one line when ready, an engine that is started again, and 0 after draining."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import ConfigError
from omnima.server.command import adapters_of, name_of

from .conftest import made
from .http import ask, until

READY = re.compile(
    r"^(\S+) is served at (http://127\.0\.0\.1:\d+) and by gRPC on port \d+ for this machine\.$"
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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_the_life_of_a_server(places: tuple[Path, Path], tmp_path: Path) -> None:
    model, adapter = places
    log = (tmp_path / "log").open("w+")
    process = start(
        str(model),
        "--adapter",
        f"poet={adapter}",
        "--port",
        "0",
        "--grpc-port",
        "0",
        "--log",
        stderr=log,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = READY.match(line)
        assert found is not None, line
        url = found[2]
        assert found[1] == "small"
        names = {each["id"] for each in ask(url, "/v1/models")[1]["data"]}
        assert names == {"small", "poet"}
        body = {"prompt": "To be", "temperature": 0, "max_tokens": 8}
        before = ask(url, "/v1/completions", {**body, "model": "poet"})[1]["choices"]
        assert before != ask(url, "/v1/completions", body)[1]["choices"]
        assert len(ask(url, "/v1/embeddings", {"input": "a"})[1]["data"][0]["embedding"]) == 64
        bad = {"prompt": "a", "response_format": {"type": "regex", "pattern": "("}}
        assert ask(url, "/v1/completions", bad)[0] == 400

        # The engine dies while many write: they are told so, and it comes back.
        answers: list[int] = []

        def one() -> None:
            answers.append(ask(url, "/v1/completions", {**body, "max_tokens": 500, "n": 16})[0])

        threads = [threading.Thread(target=one) for _ in range(4)]
        for each in threads:
            each.start()
        until(lambda: ask(url, "/health")[1].get("running", 0) > 0)
        [worker] = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        for each in threads:
            each.join()
        assert 503 in answers and set(answers) <= {200, 503}
        status, answer, _ = ask(url, "/health")
        assert (status, "error" in answer) in ((503, True), (200, False))
        assert until(lambda: ask(url, "/health")[0] == 200, 30)
        assert children(process.pid) != [worker]
        assert ask(url, "/v1/completions", {**body, "model": "poet"})[1]["choices"] == before
        assert "omnima:engine_restarts" in ask(url, "/metrics")[1]

        # What has begun is written to its end.
        late: list[Any] = []
        thread = threading.Thread(
            target=lambda: late.append(
                ask(url, "/v1/completions", {**body, "max_tokens": 400, "n": 16})
            )
        )
        thread.start()
        until(lambda: ask(url, "/health")[1].get("running", 0) > 0, 2)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert process.wait(20) == 0
        assert late[0][0] == 200 and late[0][1]["usage"]["completion_tokens"] == 6400
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    log.seek(0)
    text = log.read()
    log.close()
    assert "POST '/v1/completions' 200" in text and "To be" not in text


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
