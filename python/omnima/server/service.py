"""Text in, text out, for many requests at once: jobs for the engine, text of its events."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from omnima.errors import OmnimaError
from omnima.generation.text import TextAssembler
from omnima.server.embeddings import Embeddings, Gone
from omnima.server.errors import RequestError, as_request_error, engine_away, shutting_down
from omnima.server.jobs import EngineClient, Event, Job
from omnima.tokenizers import Tokenizer

#: (id, logprob, [(id, logprob) of the likeliest])
TokenLogprob: TypeAlias = "tuple[int, float, list[tuple[int, float]]]"
_log = logging.getLogger("omnima.server")
_REASONS = {"eos": "stop", "length": "length"}


class Piece(NamedTuple):
    """What a choice has got since the last piece; with a reason it is the last one."""

    choice: int
    text: str
    logprobs: list[TokenLogprob]
    reason: str


@dataclass(frozen=True)
class TextRequest:
    """Texts to write for a client: one a job.

    Attributes
    ----------
    jobs
        Choices of the answer, in order.
    stop
        Strings that end a text, and are cut off.
    whole
        Write special tokens out, which the form of a text may need.
    seconds
        After which all is ended; 0: never.
    held
        Characters that may wait for a client who reads slowly.
    """

    jobs: Sequence[Job]
    stop: tuple[str, ...] = ()
    whole: bool = False
    seconds: float = 0.0
    held: int = 1 << 16


@dataclass
class Timing:
    """When what happened to a request, in seconds of time.perf_counter()."""

    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    ended: float = 0.0


class Choice:
    """One text that is being written."""

    __slots__ = ("assembler", "cached", "index", "reason", "run", "stop_ids", "tag", "tokens")

    def __init__(self, run: Run, index: int, tag: int, job: Job, assembler: TextAssembler) -> None:
        self.run, self.index, self.tag = run, index, tag
        self.assembler, self.stop_ids = assembler, frozenset(job.stop_ids)
        self.tokens, self.cached, self.reason = 0, 0, ""

    def take(self, ids: list[int], logprobs: list[Any], reason: str, cached: int) -> Piece:
        """Take new tokens; the piece's reason is "stop" when a stop string has come."""
        assembler, text = self.assembler, ""
        known: list[TokenLogprob] = []
        self.tokens += len(ids)
        self.cached = cached or self.cached
        for number, id in enumerate(ids):
            if id in self.stop_ids:
                continue
            text += assembler.push(id)
            if logprobs:
                known.append((id, *logprobs[number]))
            if assembler.stopped:
                break
        if reason and not assembler.stopped:
            text += assembler.finish()
        self.reason = "stop" if assembler.stopped else _REASONS.get(reason, reason)
        return Piece(self.index, text, known, self.reason)


class Run:
    """The choices of one request while they are written; what has come waits to be taken."""

    def __init__(self, service: Service, request: TextRequest) -> None:
        self.request, self.timing = request, Timing()
        self.choices: list[Choice] = []
        self.open = len(request.jobs)
        self.taken = False  # by the engine, all of it
        self._service = service
        self._pending: list[Piece] = []
        self._held = 0
        self._error: RequestError | None = None
        self._news = asyncio.Event()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts; equal ones that follow each other are one prompt."""
        jobs = self.request.jobs
        return sum(
            len(job.prompt)
            for i, job in enumerate(jobs)
            if i == 0 or jobs[i - 1].prompt is not job.prompt
        )

    @property
    def new_tokens(self) -> int:
        """Tokens written so far, end tokens included."""
        return sum(each.tokens for each in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that were not read again."""
        jobs = self.request.jobs
        return sum(
            each.cached
            for i, each in enumerate(self.choices)
            if i == 0 or jobs[i - 1].prompt is not jobs[i].prompt
        )

    async def next(self) -> list[Piece]:
        """Wait for what comes next; [] when all choices are done.

        Raises
        ------
        RequestError
            A choice failed, took too long or is read too slowly; the others were ended.
        """
        while not self._pending:
            if self._error is not None:
                raise self._error
            if not self.open:
                return []
            self._news.clear()
            await self._news.wait()
        taken, self._pending, self._held = self._pending, [], 0
        return taken

    def tell(self, piece: Piece) -> None:
        """A piece has come."""
        if not self.timing.first:
            self.timing.first = time.perf_counter()
        if piece.text or piece.reason or piece.logprobs:
            self._pending.append(piece)
            self._held += len(piece.text) + 1
            if self._held > self.request.held:
                self.fail(RequestError("The answer was not read while it was written.", 499))
            self._news.set()

    def fail(self, error: RequestError) -> None:
        """End all choices; whoever waits for the next piece gets the error."""
        if self._error is None:
            self._error = error
            self._pending.clear()
            self._news.set()
        self.cancel()

    def is_late(self) -> None:
        """End all choices: they have had their time."""
        message = f"The answer was not written within {self.request.seconds:g} seconds."
        self.fail(RequestError(message, 504, code="timeout"))

    def cancel(self) -> None:
        """End all choices that are still written; nothing more is told of them."""
        self._service.forget(self, [each for each in self.choices if not each.reason])
        self.open = 0
        self._news.set()


class Service:
    """Many requests over one engine. All methods belong to one event loop.

    Parameters
    ----------
    engine
        Writes.
    tokenizer
        The model's.
    finished
        Called with each run that was taken when its last choice has ended, or it was ended.
    """

    def __init__(
        self,
        engine: EngineClient,
        tokenizer: Tokenizer,
        finished: Callable[[Run], object] | None = None,
    ) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self._finished = finished
        self._choices: dict[int, Choice] = {}
        self._runs: dict[Run, asyncio.TimerHandle | None] = {}  # which ends those that are late
        self._tags = itertools.count()
        self._embeddings = Embeddings(engine)

    async def begin(self) -> None:
        """Start the engine."""
        await self.engine.begin(self._dispatch, self._died)

    async def close(self) -> None:
        """End all requests, and the engine."""
        for run in list(self._runs):
            run.fail(shutting_down())
        await self.engine.close()

    @property
    def runs(self) -> int:
        """How many requests are being written."""
        return len(self._runs)

    async def embed(
        self,
        rows: Sequence[list[int]],
        adapter: str | None,
        seconds: float,
        gone: Gone | None = None,
    ) -> list[list[float]]:
        """Return the mean of the last hidden states of each text.

        One text after another is computed, so that a long list of one client lets others in
        between, and ends when its client has gone. A text that is being computed when its client
        goes, or when it is too late, is computed to its end, and the next one begins no sooner.

        Raises
        ------
        RequestError
            The client has gone, or it takes too long.
        """
        return await self._embeddings.of(rows, adapter, seconds, gone)

    async def write(self, request: TextRequest) -> Run:
        """Begin to write.

        Raises
        ------
        RequestError
            The engine does not take it.
        """
        run = Run(self, request)
        late = asyncio.get_running_loop().call_later
        self._runs[run] = late(request.seconds, run.is_late) if request.seconds else None
        try:
            for index, job in enumerate(request.jobs):
                decoder = self.tokenizer.stream_decoder(not request.whole, after=job.prompt)
                assembler = TextAssembler(decoder, request.stop)
                choice = Choice(run, index, next(self._tags), job, assembler)
                # Before it is taken: its first events may come while others are being submitted.
                self._choices[choice.tag] = choice
                run.choices.append(choice)
                # A request of many texts takes turns with those of few.
                own = replace(job, client=run.choices[0].tag)
                await self.engine.submit(choice.tag, own)
                if run._error is not None:  # it was ended meanwhile
                    raise run._error
        except (OmnimaError, asyncio.CancelledError) as error:
            run.cancel()
            if isinstance(error, OmnimaError):
                raise as_request_error(error) from None
            raise
        run.taken = True
        if run not in self._runs:  # its last choice has ended already
            self._count(run)
        return run

    def _died(self) -> None:
        for run in list(self._runs):
            run.fail(engine_away())

    def forget(self, run: Run, choices: Sequence[Choice]) -> None:
        """End a run with the choices that are still written: their events are of no interest."""
        for choice in choices:
            choice.reason = "cancelled"
            if self._choices.pop(choice.tag, None) is not None:
                self.engine.cancel(choice.tag)
        self._end(run)

    def _dispatch(self, events: Sequence[Event]) -> None:
        for tag, ids, logprobs, reason, cached, error in events:
            choice = self._choices.get(tag)
            if choice is None:  # it was ended from this side
                continue
            if reason == "error":
                choice.run.fail(_failed(choice, error))
                continue
            if reason == "cancelled":
                choice.run.fail(RequestError("The engine ended this request.", 503, retry_after=5))
                continue
            try:
                self._take(choice, ids, logprobs, reason, cached)
            except Exception as wrong:  # noqa: BLE001 - it must end no other request
                _log.error("What was written cannot be told.", exc_info=wrong)
                choice.run.fail(as_request_error(wrong))

    def _take(
        self, choice: Choice, ids: list[int], logprobs: list[Any], reason: str, cached: int
    ) -> None:
        run = choice.run
        piece = choice.take(ids, logprobs, reason, cached)
        if piece.reason:
            del self._choices[choice.tag]
            run.open -= 1
            if not reason:  # a stop string has come, of which the engine knows nothing
                self.engine.cancel(choice.tag)
        run.tell(piece)
        if not run.open:
            self._end(run)

    def _end(self, run: Run) -> None:
        if run in self._runs:
            timer = self._runs.pop(run)
            if timer is not None:
                timer.cancel()
            run.timing.ended = time.perf_counter()
            if run.taken:
                self._count(run)

    def _count(self, run: Run) -> None:
        if self._finished is not None:
            self._finished(run)


def _failed(choice: Choice, error: str) -> RequestError:
    """What a client is told when the engine fails at a text."""
    if error and choice.run.request.jobs[choice.index].grammar is not None:
        return RequestError(error)
    _log.error("The engine failed at a text: %s", error)
    return as_request_error(OmnimaError(error))
