"""Tabs of a browser, and answers side by side."""

from __future__ import annotations

import asyncio

import pytest

from omnima.demo.curve import curve_svg, ticks
from omnima.demo.sessions import Sessions, together


def test_the_longest_unused_session_goes() -> None:
    sessions = Sessions(2)
    first, second = sessions.of("a"), sessions.of("b")
    assert sessions.of("a") is first
    sessions.of("c")
    assert sessions.of("a") is first and sessions.of("b") is not second
    sessions.leave("a")
    sessions.leave("nobody")
    assert sessions.of("a") is not first  # nothing is kept of a tab that was closed
    assert len(first.chat) == 1 and len(first.compare) == 2


def test_streams_run_side_by_side_and_failures_are_seen() -> None:
    ended = []

    async def stream(name: str, pieces: int, fails: bool = False):
        try:
            for _ in range(pieces):
                yield
                await asyncio.sleep(0.001)
            if fails:
                raise KeyError(name)
        finally:
            ended.append(name)

    async def run() -> int:
        return sum([1 async for _ in together([stream("a", 3), stream("b", 50)], 0.005)])

    assert 2 <= asyncio.run(run()) < 50 and sorted(ended) == ["a", "b"]

    async def failing() -> None:
        async for _ in together([stream("c", 1, True)], 0.005):
            pass

    with pytest.raises(KeyError):
        asyncio.run(failing())

    async def left() -> None:
        both = together([stream("d", 10**6), stream("e", 10**6)], 0.005)
        await anext(both)
        await both.aclose()

    asyncio.run(left())
    assert sorted(ended) == ["a", "b", "c", "d", "e"]


def test_a_curve_says_what_it_shows() -> None:
    assert "while a model trains" in curve_svg([])
    history = [{"step": n, "loss": 4.0 / n} for n in range(1, 900)]
    history[99]["val_loss"] = 2.5
    history[100]["loss"] = float("nan")
    svg = curve_svg(history, of=1000)
    assert svg.count("<polyline") == 3 and svg.count("<circle") == 1 and "nan" not in svg
    assert 'aria-label="Loss from 4.000 at step 1' in svg and "held out 2.500" in svg
    assert svg.count(",") < 3 * 900  # a long line is drawn with fewer points
    flat = curve_svg([{"step": 1, "loss": 2.0}])
    assert "<polyline" in flat
    assert ticks(0, 3) == [0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_the_beginning_of_a_long_run_is_seen() -> None:
    history = [{"step": step, "loss": 3.0} for step in range(1, 101)]
    assert ">400</text>" in curve_svg(history, of=20_000)
    assert ">150</text>" in curve_svg(history, of=150) and ">400<" not in curve_svg(history, 150)
