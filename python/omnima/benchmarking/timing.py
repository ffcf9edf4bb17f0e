"""One measured call of a system that writes: what of it is reading the prompt, what is writing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from omnima.benchmarking.systems import Writer
from omnima.errors import OmnimaError

_TRIES = 20


def timed_apart(seconds: Callable[[int], float], new_tokens: int) -> tuple[float, float]:
    """Return the seconds of the first token, and those of the others.

    Parameters
    ----------
    seconds
        Writes so many tokens, and says how long it took.
    new_tokens
        How many there are with the first.

    Raises
    ------
    OmnimaError
        All take no longer than one, however often it is tried.
    """
    firsts, wholes = [], []
    for _ in range(_TRIES):
        firsts.append(seconds(1))
        wholes.append(seconds(new_tokens))
        # Other work on the machine only adds time: the quickest of each is nearest to its own.
        first, whole = min(firsts), min(wholes)
        if whole > first:
            return first, whole - first
    raise OmnimaError(
        f"Writing {new_tokens} tokens takes no longer than writing one: the machine is busy "
        "with other work, or the tokens are too few to time. Give more --new-tokens."
    )


class Timing:
    """Times a writer.

    For "prefill" a step is the prompts and one token. For "decode" and "batch" it is what the
    tokens after the first take: the time of a whole call less that of one that writes one token,
    right after each other.
    """

    def __init__(self, write: Writer, task: str, prompts: list[list[int]], new_tokens: int) -> None:
        self._write, self._task = write, task
        self._prompts, self._new = prompts, new_tokens
        self._firsts: list[float] = []
        self._ids: list[int] = []

    def work(self) -> list[int]:
        """Write once, and keep what was written."""
        self._ids = self._write(self._prompts, self._new)
        return self._ids

    def once(self) -> float:
        """Return the seconds of one step."""
        if self._task == "prefill":
            self._firsts.append(self._seconds(1))
            return self._firsts[-1]
        first, rest = timed_apart(self._seconds, self._new)
        self._firsts.append(first)
        return rest

    def _seconds(self, new_tokens: int) -> float:
        start = time.perf_counter()
        self._write(self._prompts, new_tokens)
        return time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """What a row says beside the time of a step."""
        return {"first_token_seconds": statistics.median(self._firsts), "ids": self._ids}
