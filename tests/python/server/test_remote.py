"""The two sides of an engine in another process, each against what the other should not say."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import omnima
from omnima.errors import ConfigError, OmnimaError
from omnima.server import remote, worker
from omnima.server.errors import RequestError
from omnima.server.jobs import Job
from omnima.server.remote import RemoteEngine
from omnima.server.watch import Watch
from omnima.server.wire import Unpacker, packed, read_messages
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
        assert engine._tasks and not engine._tasks[0].done()
        await engine.close()

    asyncio.run(main())


def test_what_fails_inside_is_for_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
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


def engine_of(
    program: str, monkeypatch: pytest.MonkeyPatch, place: Path, **more: float
) -> RemoteEngine:
    """An engine whose process runs this program, which finds its socket as `wire`, how often it was
    started before as `count`, and `tell`.
    """
    opens = (
        "import json, pathlib, socket, struct, sys, time\n"
        "wire = socket.socket(fileno=int(sys.argv[1]))\n"
        f"starts = pathlib.Path({str(place / 'starts')!r})\n"
        "count = int(starts.read_text()) if starts.exists() else 0\n"
        "starts.write_text(str(count + 1))\n"
        "def tell(message):\n"
        "    body = json.dumps(message).encode()\n"
        "    wire.sendall(struct.pack('<I', len(body)) + body)\n"
        "ready = {'ready': {'context': 8, 'vocab_size': 9, 'adapters': ['a'],\n"
        "                   'memory_bytes': 64}}\n"
    )
    monkeypatch.setattr(remote, "_PROGRAM", opens + program)
    return RemoteEngine(Opening("x"), first_pause=0.01, longest_pause=0.02, **more)


@pytest.mark.parametrize(
    "program,kind,said",
    [
        ("", OmnimaError, "ended while it opened"),
        ("tell({'failed': {'message': 'no file', 'config': True}})", ConfigError, "^no file$"),
        ("tell({'failed': {'message': 'KeyError: 1', 'config': False}})", OmnimaError, "KeyError"),
    ],
)
def test_a_model_that_cannot_be_opened_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    kind: type[OmnimaError],
    said: str,
) -> None:
    async def main() -> None:
        engine = engine_of(program, monkeypatch, tmp_path)
        with pytest.raises(OmnimaError, match=said) as found:
            await engine.start()
        assert type(found.value) is kind
        with pytest.raises(RequestError, match="away"):
            await engine.stats()
        engine.cancel(1)  # which nobody hears
        await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize("calm", [60.0, -1.0])
def test_an_engine_that_dies_is_started_until_it_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calm: float
) -> None:
    """Its first life ends at once, its second before it begins, its third stays."""
    program = (
        "if count == 1: sys.exit()\n"
        "tell(ready)\n"
        "if count == 0: sys.exit()\n"
        "head = b''\n"
        "while part := wire.recv(4096):\n"
        "    head += part\n"
        "    if b'stats' in head: tell({'call': 99}); tell({'call': 0, 'result': {'running': 7}})\n"
    )
    monkeypatch.setattr(remote, "_CALM", calm)
    deaths: list[int] = []

    async def main() -> None:
        engine = engine_of(program, monkeypatch, tmp_path)
        await engine.begin(lambda events: None, lambda: deaths.append(1))
        assert (engine.context, engine.vocab_size, engine.adapters) == (8, 9, ("a",))
        assert engine.memory_bytes == 64
        end = time.monotonic() + 60
        while engine.restarts < 2 or not engine._ready:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert deaths == [1] and await engine.stats() == {"running": 7}
        await engine.close()

    asyncio.run(main())
    assert (tmp_path / "starts").read_text() == "3"


@pytest.mark.parametrize(
    "program",
    [
        "for _ in range(5): tell({'events': [[1, [], [], 'error', 0, 'no']]})\ntime.sleep(600)",
        "time.sleep(600)",
        "for i in range(10**9):\n"
        "    assert wire.recv(4096)\n"
        "    stats = {'running': 1, 'waiting': 0, 'busy_seconds': 3.5}\n"
        "    tell({'call': i, 'result': stats})\n",
    ],
    ids=["fails", "does not answer", "does not end a step"],
)
def test_an_engine_that_writes_no_more_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    async def main() -> None:
        engine = engine_of("tell(ready)\n" + program, monkeypatch, tmp_path, stall_seconds=0.4)
        deaths: list[int] = []
        await engine.begin(lambda events: None, lambda: deaths.append(1))
        first = engine._process
        assert first is not None
        end = time.monotonic() + 60
        while not engine.restarts:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert deaths and first.returncode == -signal.SIGKILL
        await engine.close()

    monkeypatch.setattr(remote, "_ENDING", 0.2)
    asyncio.run(main())


def figures(running: int, busy: float) -> dict[str, float]:
    return {"running": running, "waiting": 0, "busy_seconds": busy}


def test_an_engine_that_rests_or_goes_on_has_not_stalled() -> None:
    watch = Watch(1.0)
    assert not any(watch.stalls(figures(0, 1.0)) for _ in range(99))
    assert not any(watch.stalls(figures(1, i / 10)) for i in range(99))
    assert not any(watch.stalls(figures(1, i // 15)) for i in range(99))
    assert not watch.stalls(figures(1, 49.0))
    assert not any(watch.stalls(None) for _ in range(15))
    assert not watch.stalls(figures(1, 50.0))
    assert [watch.stalls(figures(1, 50.0)) for _ in range(20)][-2:] == [False, True]


def test_a_structure_that_cannot_be_kept_to_is_no_failure_of_the_engine() -> None:
    watch = Watch(1.0)
    for tag in range(9):
        watch.submit(tag, True)
        assert not watch.fails([(tag, [], [], "error", 0, "no")])
        assert not watch.fails([(99, [], [], "cancelled", 0, "")])
    assert not watch._structured

    async def main() -> None:
        engine = RemoteEngine(Opening("x"))
        with pytest.raises(RequestError, match="away"):
            await engine.submit(1, Job([1], {}, grammar="x"))
        assert not engine._watch._structured

    asyncio.run(main())


def test_a_process_that_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "_ENDING", 0.2)

    async def main() -> None:
        engine = engine_of("tell(ready)\ntime.sleep(600)", monkeypatch, tmp_path)
        await engine.start()
        process = engine._process
        assert process is not None
        await engine.close()
        assert process.returncode == -signal.SIGKILL

    asyncio.run(main())


def test_messages_that_are_none_end_the_conversation() -> None:
    with pytest.raises(ValueError, match="4294967295 bytes"):
        Unpacker().feed(b"\xff\xff\xff\xff")
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(packed("heard"))
        theirs.sendall(b"what nobody reads")
        heard = read_messages(theirs)
        assert next(heard) == "heard"
        ours.close()
        assert list(heard) == []
    theirs.close()


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
