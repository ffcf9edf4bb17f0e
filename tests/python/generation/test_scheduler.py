"""The scheduler as Python sees it: events of requests that share an engine."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from omnima import _core
from omnima.errors import ConfigError, QueueFullError

from . import models

OPTIONS = {"max_new_tokens": 8, "temperature": 0.0}


@pytest.fixture(scope="module")
def engine():
    return _core.Engine(*models.random_parameters())


def heard(scheduler, requests):
    """All events until these requests have ended, by request."""
    found = {request: [] for request in requests}
    while not all(found[request] and found[request][-1][3] for request in requests):
        events = scheduler.events(20.0)
        assert events
        for event in events:
            found.setdefault(event[0], []).append(event)
    return found


def test_requests_are_answered_with_events(engine):
    scheduler = _core.Scheduler(engine, max_sequences=2)
    prompts = [[1, 2, 3], [4, 5], [1, 2, 3]]
    requests = [
        scheduler.submit(prompt, OPTIONS, seed=7, top_logprobs=2 if i == 0 else -1)
        for i, prompt in enumerate(prompts)
    ]
    found = heard(scheduler, requests)
    wanted = engine.generate(prompts, OPTIONS, seeds=[7, 7, 7])
    for request, (ids, reason, *_) in zip(requests, wanted):
        events = found[request]
        assert [token for event in events for token in event[1]] == ids
        assert events[-1][3] == reason == "length"
        assert events[-1][5] == ""
    for _, ids, logprobs, *_ in found[requests[0]]:
        assert len(logprobs) == len(ids)
        logprob, top = logprobs[0]
        assert top[0] == (ids[0], pytest.approx(logprob))
        assert len(top) == 2
    assert all(event[2] == [] for event in found[requests[1]])
    stats = scheduler.stats()
    assert stats["running"] == stats["waiting"] == stats["blocks_in_use"] == 0
    assert stats["new_tokens"] == 24
    assert stats["prompt_tokens"] == 8


def test_events_wait_no_longer_than_asked(engine):
    scheduler = _core.Scheduler(engine)
    start = time.monotonic()
    assert scheduler.events(0.05) == []
    assert 0.04 < time.monotonic() - start < 5


def test_another_thread_may_cancel(engine):
    scheduler = _core.Scheduler(engine)
    request = scheduler.submit([1], {"max_new_tokens": 90, "temperature": 0.0})
    thread = threading.Thread(target=scheduler.cancel, args=(request,))
    thread.start()
    reason = heard(scheduler, [request])[request][-1][3]
    thread.join()
    assert reason in ("cancelled", "length")
    assert not scheduler.cancel(request)


def test_bad_requests_are_refused_with_a_reason(engine):
    scheduler = _core.Scheduler(engine, max_sequences=1, max_waiting=0)
    with pytest.raises(ConfigError, match="no tokens"):
        scheduler.submit([], OPTIONS)
    with pytest.raises(ConfigError, match="temperature"):
        scheduler.submit([1], {"temperature": -1.0})
    with pytest.raises(ConfigError, match="speculation"):
        scheduler.submit([1], {"speculative_tokens": 3})
    with pytest.raises(ConfigError, match="constrain"):
        scheduler.submit([1], OPTIONS, constrained=True)
    with pytest.raises(QueueFullError, match="try again"):
        for _ in range(50):
            scheduler.submit([1], {"max_new_tokens": 90})


@pytest.mark.parametrize("option", ["max_sequences", "chunk_tokens"])
def test_options_out_of_bounds_are_refused(engine, option):
    with pytest.raises(ConfigError, match=option):
        _core.Scheduler(engine, **{option: 0})
    with pytest.raises(ConfigError, match="prompt_precision"):
        _core.Scheduler(engine, prompt_precision="fp8")


def test_constrain_says_which_tokens_may_follow(engine):
    seen = []

    def constrain(requests, ids, masks):
        seen.append((requests, ids, masks.shape))
        allowed = 5 + len(seen)
        masks[:, allowed // 32] = 1 << (allowed % 32)
        return [""] * len(requests)

    scheduler = _core.Scheduler(engine, constrain=constrain)
    request = scheduler.submit([1, 2], OPTIONS, constrained=True)
    events = heard(scheduler, [request])[request]
    assert [token for event in events for token in event[1]] == list(range(6, 14))
    assert seen[0] == ([request], [[]], (1, 4))
    assert seen[1] == ([request], [[6]], (1, 4))


def test_what_constrain_raises_ends_its_requests_alone(engine):
    def constrain(requests, ids, masks):
        raise RuntimeError("no grammar")

    scheduler = _core.Scheduler(engine, constrain=constrain)
    one = scheduler.submit([1, 2], OPTIONS, constrained=True)
    other = scheduler.submit([1, 2], OPTIONS)
    found = heard(scheduler, [one, other])
    assert found[one][-1][3] == "error"
    assert "no grammar" in found[one][-1][5]
    assert found[other][-1][3] == "length"


def test_a_scheduler_that_is_dropped_ends_its_thread(engine):
    before = threading.active_count()
    scheduler = _core.Scheduler(engine, constrain=lambda *_: [])
    scheduler.submit([1], {"max_new_tokens": 90})
    del scheduler
    gc.collect()
    assert threading.active_count() == before


def test_a_process_may_end_while_a_scheduler_is_at_work():
    code = """
import threading
import torch
from omnima import _core
from tests.python.generation import models
engine = _core.Engine(*models.random_parameters())
scheduler = _core.Scheduler(engine, constrain=lambda requests, ids, masks: masks.fill(-1) or [""])
for constrained in (False, True):
    scheduler.submit([1], {"max_new_tokens": 90}, constrained=constrained)
scheduler.events(1.0)

def listen():
    while True:
        scheduler.events(0.01)

threading.Thread(target=listen, daemon=True).start()
print("ends")
"""
    root = Path(__file__).parents[3]  # where the tests are a package
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "ends"
    assert ended.returncode == 0, ended.stderr


def test_clients_take_turns(engine):
    asked = threading.Event()

    def constrain(requests, ids, masks):
        asked.wait(20)
        masks.fill(-1)
        return [""] * len(requests)

    scheduler = _core.Scheduler(engine, max_sequences=1, constrain=constrain)
    scheduler.submit([1], {"max_new_tokens": 1}, constrained=True)
    many = [scheduler.submit([1], {"max_new_tokens": 9}, client=1) for _ in range(4)]
    one = scheduler.submit([1], {"max_new_tokens": 9}, client=2)
    asked.set()
    ended = []
    while len(ended) < 6:
        ended += [event[0] for event in scheduler.events(20.0) if event[3]]
    assert ended[1:] == [many[0], one, *many[1:]]


def test_closing_wakes_who_waits_for_events(engine):
    scheduler = _core.Scheduler(engine)
    threading.Timer(0.1, scheduler.close).start()
    start = time.monotonic()
    assert scheduler.events(20.0) == []
    assert time.monotonic() - start < 10
