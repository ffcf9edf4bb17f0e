"""One measured call of a system that writes: what of it is reading the prompt, what is writing."""

from __future__ import annotations

import statistics
import time
from typing import Any

from omnima.benchmarking.systems import Writer
from omnima.errors import OmnimaError

_TRIES = 20


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
        firsts, wholes = [], []
        for _ in range(_TRIES):
            firsts.append(self._seconds(1))
            wholes.append(self._seconds(self._new))
            # Other work on the machine only adds time: the quickest of each is nearest to its own.
            first, whole = min(firsts), min(wholes)
            if whole > first:
                self._firsts.append(first)
                return whole - first
        raise OmnimaError(
            f"Writing {self._new} tokens takes no longer than writing one: the machine is busy "
            "with other work, or the tokens are too few to time. Give more --new-tokens."
        )

    def _seconds(self, new_tokens: int) -> float:
        start = time.perf_counter()
        self._write(self._prompts, new_tokens)
        return time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """What a row says beside the time of a step."""
        return {"first_token_seconds": statistics.median(self._firsts), "ids": self._ids}
