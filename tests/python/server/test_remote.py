"""The two sides of an engine in another process, each against what the other should not say."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import omnima
from omnima.server import remote, worker
from omnima.server.errors import RequestError
from omnima.server.remote import RemoteEngine
from omnima.server.wire import packed, read_messages
from omnima.server.worker import Opening


def test_a_listener_that_fails_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would hear the process any more, and all texts would hang."""
    deaths: list[int] = []
    started = []

    async def main() -> None:
        engine = RemoteEngine(Opening("x"), first_pause=0.01)

        async def messages() -> list[Any]:
            if started:
                await asyncio.sleep(60)
            return [{"events": [1]}]

        async def start() -> None:
            started.append(1)
            engine._ready = True

        def wrong(_: Any) -> None:
            raise RuntimeError("one bad event")

        monkeypatch.setattr(engine, "_next_messages", messages)
        monkeypatch.setattr(engine, "start", start)
        engine._ready = True
        await engine.begin(wrong, lambda: deaths.append(1))
        end = time.monotonic() + 60
        while not started and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert deaths == [1] and engine.restarts == 1
        assert engine._task is not None and not engine._task.done()
        await engine.close()

    asyncio.run(main())


def test_what_fails_inside_is_for_the_log(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    told = worker._told(KeyError(str(tmp_path / "secret")))
    assert told["status"] == 500 and "secret" not in told["message"]
    assert worker._told(omnima.errors.ConfigError("no adapter"))["message"] == "no adapter"

    async def main() -> None:
        engine = RemoteEngine(Opening("x"))
        waiting = asyncio.get_running_loop().create_future()
        engine._calls[0] = waiting
        engine._hear({"call": 0, "error": told})
        with pytest.raises(RequestError, match="its log says more"):
            await waiting

    with caplog.at_level(logging.ERROR, "omnima.server"):
        asyncio.run(main())
    assert "secret" in caplog.text


def test_the_process_takes_no_module_from_where_it_is_started(tmp_path: Path) -> None:
    """The folder may be anybody's: what lies there must not stand in for what the process needs."""
    for name in ("secrets", "dataclasses"):
        said = f"open(__file__ + '.ran', 'w').close()\nraise ImportError({name!r})\n"
        (tmp_path / f"{name}.py").write_text(said)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", remote._PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        with process:
            ours.sendall(packed(asdict(Opening(str(tmp_path / "no model")))))
            first = next(read_messages(ours), None)
            ours.close()
            assert process.stderr is not None
            said = process.stderr.read().decode()
    assert first is not None and "no model" in first["failed"]["message"], said
    assert process.returncode == 0 and not list(tmp_path.glob("*.ran"))
