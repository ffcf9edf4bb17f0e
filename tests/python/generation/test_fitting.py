"""Which turns of a long conversation are shown to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from omnima.errors import ConfigError
from omnima.generation.fitting import newest_that_fit


def conversation(rounds: int) -> list[dict[str, Any]]:
    roles = ["user", "assistant"] * rounds + ["user"]
    return [{"role": role, "content": "a" * 10} for role in roles]


def encode(messages: Sequence[dict[str, Any]]) -> list[int]:
    return [0] * (5 + sum(len(each["content"]) for each in messages))


def slowly(messages: Sequence[dict[str, Any]], room: int) -> int | None:
    """Where the newest turns begin that fit, found by trying each."""
    starts = range(0, len(messages), 2)
    return next((i for i in starts if len(encode(messages[i:])) <= room), None)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 8])
def test_the_first_turn_that_fits_is_found(rounds: int) -> None:
    messages = conversation(rounds)
    for room in range(0, len(encode(messages)) + 10, 5):
        expected = slowly(messages, room)
        if expected is None:
            with pytest.raises(ConfigError, match=f"needs 15 tokens .* only {room} of"):
                newest_that_fit(messages, encode, room, 1000)
        else:
            ids, unseen = newest_that_fit(messages, encode, room, 1000)
            assert (unseen, ids) == (expected, encode(messages[expected:]))


def test_a_long_history_is_not_written_out_for_each_of_its_turns() -> None:
    messages, calls = conversation(500), []

    def counted(part: Sequence[dict[str, Any]]) -> list[int]:
        calls.append(len(part))
        return encode(part)

    assert newest_that_fit(messages, counted, 100, 1000)[1] == 1001 - 9
    assert len(calls) < 15
