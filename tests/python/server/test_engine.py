"""What an engine leaves behind when it is closed, or did not start."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from dataclasses import asdict, dataclass
from typing import Any

import pytest

import omnima
from omnima.errors import ConfigError, OmnimaError
from omnima.server import engine as engine_module
from omnima.server import grammar, running, worker
from omnima.server.engine import Engine, LocalEngine
from omnima.server.errors import RequestError
from omnima.server.jobs import EngineOptions, Job
from omnima.server.wire import packed, read_messages

from .conftest import made
from .http import until


def test_a_closed_engine_is_let_go(model: omnima.Model) -> None:
    engine = Engine(model, EngineOptions(), [2])
    done = threading.Event()
    engine.begin(lambda events: [done.set() for each in events if each[3]])
    engine.submit(0, Job([5, 6], {"max_new_tokens": 2}))
    assert done.wait(60)
    engine.close()
    seen = weakref.ref(engine)
    del engine
    gc.collect()
    assert seen() is None


def test_a_job_may_be_cancelled_before_it_comes(model: omnima.Model) -> None:
    """A structured one is compiled aside, and its cancellation overtakes it."""
    engine = Engine(model, EngineOptions(), [2])
    job = Job([5, 6], {"max_new_tokens": 400}, grammar=grammar.of_regex("[a-z]{400}"))
    try:
        engine.expect(1)
        engine.cancel(1)
        with pytest.raises(RequestError, match="ended before") as found:
            engine.submit(1, job)
        assert found.value.status == 499 and engine.stats()["waiting"] == 0
        assert engine._grammars is not None and not engine._grammars._compiled  # no work is done
        engine.expect(2)
        with pytest.raises(ConfigError):
            engine.submit(2, Job([5], {"max_new_tokens": 1}, grammar="{"))
        engine.cancel(2)
        engine.submit(2, job)  # of another request, which nobody has cancelled
        engine.cancel(2)
    finally:
        engine.close()
    assert not engine._expected


@dataclass
class Opens:
    """In the place of what a process would open."""

    model: omnima.Model

    def engine(self) -> Engine:
        return Engine(self.model, EngineOptions(), [2])


def test_a_worker_hears_a_cancellation_that_overtakes(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "Opening", lambda: Opens(model))
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.Worker(theirs).run)
    thread.start()
    with ours:
        heard = read_messages(ours)
        ours.sendall(packed({}))
        assert "ready" in next(heard)
        job = Job([5, 6], {"max_new_tokens": 400}, grammar=grammar.of_regex("[a-z]{400}"))
        told = {"do": "submit", "tag": 1, "job": asdict(job), "call": 1}
        ours.sendall(packed(told) + packed({"do": "cancel", "tag": 1}))
        written, reason = 0, ""
        for message in heard:
            if "error" in message:
                reason = str(message["error"]["status"])
            for _, ids, _, why, _, _ in message.get("events", []):
                written, reason = written + len(ids), why or reason
            if reason:
                break
    thread.join()
    theirs.close()
    assert reason in ("499", "cancelled") and written < 400


def test_a_worker_embeds_and_outlives_whoever_asks(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "Opening", lambda: Opens(model))
    ours, theirs = socket.socketpair()
    serving = worker.Worker(theirs)
    thread = threading.Thread(target=serving.run)
    thread.start()
    with ours:
        heard = read_messages(ours)
        ours.sendall(packed({}))
        next(heard)
        ours.sendall(packed({"do": "embed", "call": 5, "ids": [5, 6], "adapter": None}))
        told = next(heard)
        assert told["call"] == 5
        assert told["result"] == pytest.approx(model.engine.embedding([5, 6]).tolist())
        ours.sendall(packed({"do": "embed", "call": 6, "ids": [5], "adapter": "nobody"}))
        assert "nobody" in next(heard)["error"]["message"]
    thread.join()
    serving._tell({"events": []})  # to nobody
    theirs.close()


def test_a_worker_that_is_asked_nothing_ends_and_opens_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(worker, "Opening", lambda *given, **named: opened.append(named))
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.Worker(theirs).run, daemon=True)
    thread.start()
    ours.close()
    thread.join(60)
    theirs.close()
    assert not thread.is_alive() and not opened


def test_without_an_end_token_no_structure_is_written(model: omnima.Model) -> None:
    engine = Engine(model, EngineOptions(), [])
    try:
        with pytest.raises(ConfigError, match="no end token"):
            engine.submit(1, Job([5], {"max_new_tokens": 1}, grammar=grammar.of_regex("a")))
    finally:
        engine.close()


def test_events_behind_the_end_of_an_event_loop_are_let_go(model: omnima.Model) -> None:
    engine = LocalEngine(model, EngineOptions(), [2])
    heard: list[Any] = []

    async def main() -> None:
        await engine.begin(heard.append, lambda: None)
        await engine.submit(0, Job([5, 6], {"max_new_tokens": 400, "temperature": 0.0}))

    asyncio.run(main())
    pump = engine._engine._pump
    assert pump is not None
    assert until(lambda: not engine._engine._requests)  # all its events were told, to nobody
    assert pump.is_alive()  # for the next one
    engine.end()
    assert not pump.is_alive()


def test_adapters_are_in_use_again_afterwards() -> None:
    model = made()
    model.set_adapters({"bard": 0.5})
    with omnima.serve(model):
        assert model.adapters_in_use == {}
    assert model.adapters_in_use == {"bard": 0.5}
    with omnima.serve(model):
        with omnima.serve(model):
            pass
        assert model.adapters_in_use == {}  # the other server still runs
        model.set_adapters("bard")  # who chooses meanwhile has the last word
    assert model.adapters_in_use == {"bard": 1.0}
    with pytest.raises(ConfigError):
        omnima.serve(model, options=EngineOptions(chunk_tokens=1))
    assert model.adapters_in_use == {"bard": 1.0}


@pytest.mark.parametrize("fails", ["names", "begins"])
def test_a_server_that_does_not_start_leaves_no_engine(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Its scheduler is closed, which ends the thread of that, and no thread of Python's is left."""
    made: list[Engine] = []

    class Seen(Engine):
        def begin(self, tell: Any) -> None:
            super().begin(tell)
            if fails == "begins":
                raise OSError("no threads")

        def _open(self, *given: Any) -> None:
            super()._open(*given)
            made.append(self)

    monkeypatch.setattr(engine_module, "Engine", Seen)
    said = "both named" if fails == "names" else "did not start"
    before = set(threading.enumerate())
    for _ in range(2):
        with pytest.raises(OmnimaError, match=said):
            omnima.serve(model, name="bard" if fails == "names" else "tiny")
    assert len(made) == 2
    for each in made:
        with pytest.raises(OmnimaError, match="scheduler is closed"):
            each.submit(0, Job([5], {"max_new_tokens": 1}))
    assert until(lambda: not ours(set(threading.enumerate()) - before))


def test_a_server_that_hangs_is_not_waited_for(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    async def begin(*_: Any) -> None:
        while not goes_on.is_set():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(running, "_START_SECONDS", 0.2)
    monkeypatch.setattr(LocalEngine, "begin", begin)
    before = set(threading.enumerate())
    with pytest.raises(OmnimaError, match=r"within 0\.2 seconds"):
        omnima.serve(model)
    assert ours(set(threading.enumerate()) - before) == ["omnima-server"]
    goes_on.set()
    assert until(lambda: not ours(set(threading.enumerate()) - before))


def ours(threads: set[threading.Thread]) -> list[str]:
    return [each.name for each in threads if each.name.startswith("omnima")]
