"""What the server asks of an engine, wherever that runs: in this process or in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

#: (tag, new ids, a (logprob, [(id, logprob), …]) for each or [], finish reason or "", prompt tokens
#: that were known, message of an "error")
Event: TypeAlias = "tuple[int, list[int], list[Any], str, int, str]"
Listener: TypeAlias = Callable[[Sequence[Event]], None]


@dataclass(frozen=True)
class Job:
    """One text to write.

    Attributes
    ----------
    prompt
        Token ids.
    options
        As :func:`omnima.generation.generate` has them, by name.
    seed
        Of the draws.
    stop_ids
        Ids that end the text.
    adapter
        By name; None: the model alone.
    top_logprobs
        -1: no logprobs; else those of the chosen token and of so many of the likeliest.
    grammar
        What the text must be; see :mod:`omnima.server.grammar`.
    logit_bias
        (id, what is added to its logit).
    client
        Whose text it is: clients take turns.
    """

    prompt: list[int]
    options: dict[str, float | str]
    seed: int = 0
    stop_ids: list[int] = field(default_factory=list)
    adapter: str | None = None
    top_logprobs: int = -1
    grammar: str | None = None
    logit_bias: Sequence[tuple[int, float]] = ()
    client: int = 0


@dataclass(frozen=True)
class EngineOptions:
    """How much an engine takes on at once.

    Attributes
    ----------
    max_sequences, max_waiting
        Texts that are written together, and those that may wait for a place.
    chunk_tokens
        Tokens of a piece of a prompt, a multiple of 32: so many are read between two steps of the
        others, and prompts share the pieces that they begin with.
    memory_bytes
        Bound on the keys and values of all texts. None: what max_sequences texts as long as the
        context take, and less where less is free beside the weights and a reserve
        (:mod:`omnima.server.memory`). 0: none but max_sequences.
    kept_bytes
        Of these, for beginnings of prompts that later requests may share; on the CPU alone.
    prompt_precision, cache_precision
        As :func:`omnima.generation.generate` has them, for short prompts, too.
    """

    max_sequences: int = 16
    max_waiting: int = 128
    chunk_tokens: int = 32
    memory_bytes: int | None = None
    kept_bytes: int = 256 << 20
    prompt_precision: str = "fp32"
    cache_precision: str = "fp32"


class EngineClient(Protocol):
    """An engine as the server sees it. All calls come from one event loop."""

    @property
    def context(self) -> int:
        """Tokens that a prompt and its text may have together."""

    @property
    def vocab_size(self) -> int:
        """How many ids the model has."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a job may choose from."""

    @property
    def memory_bytes(self) -> int:
        """Bound on the keys and values of all texts; 0: there is none."""

    async def begin(self, listener: Listener, died: Callable[[], object]) -> None:
        """Start; events go to the listener, on the event loop, once a step. When the engine is lost
        with all its jobs, `died` is called.
        """

    async def submit(self, tag: int, job: Job) -> None:
        """Take a job; its events carry the tag.

        Raises
        ------
        ConfigError, QueueFullError, RequestError
            It is not taken.
        """

    def cancel(self, tag: int) -> None:
        """End a job; at most one more token is written."""

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        """Return the mean of the last hidden states."""

    async def stats(self) -> dict[str, float]:
        """Return the scheduler's figures; RequestError (503) when the engine does not answer."""

    async def close(self) -> None:
        """End all jobs, and the engine."""
