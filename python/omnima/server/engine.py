"""The engine in this process: a scheduler of the core, whose events one thread hands on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from omnima import _core
from omnima.errors import ConfigError
from omnima.model import Model
from omnima.server.errors import RequestError
from omnima.server.grammar import Constraints, Grammars
from omnima.server.jobs import EngineOptions, Event, Job, Listener
from omnima.server.memory import bytes_for_texts

_PATIENCE = 0.1  # seconds of waiting for events, after which the thread looks whether to end


class Engine:
    """A scheduler with what surrounds it: adapters by name, grammars, events by tag.

    Parameters
    ----------
    model
        With its tokenizer. No adapter is in use until the engine is closed: jobs choose.
    options
        How much is taken on at once.
    stop_ids
        Ids that end texts; a structured text ends with one of them.

    Raises
    ------
    ConfigError
        Options that make no sense, too little memory, or a GPU that cannot write with this model
        and its adapters.
    """

    def __init__(self, model: Model, options: EngineOptions, stop_ids: Sequence[int]) -> None:
        assert model.tokenizer is not None
        _check_device(model)
        self.context = int(model.config.max_position_embeddings)
        self._adapted: dict[str, Any] = {}
        if model.adapters:
            self._adapted = {name: model.adapted(name) for name in model.adapters}
        self._resting: _Resting | None = _Resting(model)
        try:
            self._open(model, options, stop_ids)
        except BaseException:
            self._restore()
            raise

    def _open(self, model: Model, options: EngineOptions, stop_ids: Sequence[int]) -> None:
        assert model.tokenizer is not None
        self._core = model.engine
        self.vocab_size = int(self._core.vocab_size)
        self._known = min(self.vocab_size, model.tokenizer.vocab_size)
        self._grammars = Grammars(model.tokenizer, self.vocab_size, stop_ids) if stop_ids else None
        self._constraints, self._lock = Constraints(), threading.Lock()
        self.memory_bytes = bytes_for_texts(model, self._core, options)
        self._scheduler = _core.Scheduler(
            self._core,
            max_sequences=options.max_sequences,
            max_waiting=options.max_waiting,
            chunk_tokens=options.chunk_tokens,
            memory_bytes=self.memory_bytes,
            kept_bytes=options.kept_bytes,
            prompt_precision=options.prompt_precision,
            cache_precision=options.cache_precision,
            # Not a method: the core would hold this engine, in a cycle that nobody sees.
            constrain=partial(_constrain, self._lock, self._constraints),
        )
        self._tags: dict[int, int] = {}  # by request of the scheduler
        self._requests: dict[int, int] = {}  # by tag
        self._expected: dict[int, bool] = {}  # by tag: whether it was cancelled before it came
        self._ended = threading.Event()
        self._pump: threading.Thread | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a job may choose from."""
        return tuple(self._adapted)

    def begin(self, tell: Callable[[Sequence[Event]], object]) -> None:
        """Call `tell` with the events of each step, on a thread of its own."""
        self._pump = threading.Thread(target=self._run, args=[tell], name="omnima-events")
        self._pump.daemon = True
        self._pump.start()

    def expect(self, tag: int) -> None:
        """A job is about to be submitted by another thread: it can be cancelled from now on."""
        with self._lock:
            self._expected[tag] = False

    def submit(self, tag: int, job: Job) -> None:
        """Take a job; see :class:`omnima.server.jobs.EngineClient`."""
        try:
            with self._lock:
                if self._expected.get(tag, False):  # while it waited: nothing is compiled for it
                    raise _ended_before()
            matcher = self._matcher(job.grammar)
        except BaseException:
            with self._lock:
                self._expected.pop(tag, None)
            raise
        with self._lock:
            if self._expected.pop(tag, False):
                raise _ended_before()
            request = self._scheduler.submit(
                job.prompt,
                job.options,
                seed=job.seed,
                stop_ids=job.stop_ids,
                known_ids=self._known,
                adapters=self._adapter(job.adapter),
                top_logprobs=job.top_logprobs,
                constrained=matcher is not None,
                client=job.client,
                logit_bias=dict(job.logit_bias),
            )
            if matcher is not None:
                self._constraints.add(request, matcher)
            self._tags[request], self._requests[tag] = tag, request

    def _matcher(self, text: str | None) -> Any:
        if text is None:
            return None
        if self._grammars is None:
            raise ConfigError("The tokenizer has no end token: no structured text could end.")
        return self._grammars.matcher(text)

    def cancel(self, tag: int) -> None:
        """End a job; one that has ended already is none."""
        with self._lock:
            if tag in self._expected:
                self._expected[tag] = True
            request = self._requests.get(tag)
        if request is not None:
            self._scheduler.cancel(request)

    def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        """Return the mean of the last hidden states, computed beside the texts."""
        found: list[float] = self._core.embedding(ids, self._adapter(adapter)).tolist()
        return found

    def stats(self) -> dict[str, float]:
        """Return the scheduler's figures."""
        return dict(self._scheduler.stats())

    def close(self) -> None:
        """End all jobs; their events are told before it returns. The model then uses the adapters
        that it used before.
        """
        self._scheduler.close()
        self._ended.set()
        if self._pump is not None:
            self._pump.join()
        self._restore()

    def _restore(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.end()

    def _adapter(self, name: str | None) -> Any:
        if name is None:
            return None
        if name not in self._adapted:
            raise ConfigError(f"There is no adapter {name!r}.")
        return self._adapted[name]

    def _run(self, tell: Callable[[Sequence[Event]], object]) -> None:
        while True:
            ended = self._ended.is_set()  # before the look, so that the last events are told
            events = self._scheduler.events(0.0 if ended else _PATIENCE)
            if events:
                tell(self._tagged(events))
            elif ended:
                return

    def _tagged(self, events: Sequence[Event]) -> list[Event]:
        found: list[Event] = []
        with self._lock:
            for request, ids, logprobs, reason, cached, error in events:
                tag = self._tags[request]
                found.append((tag, ids, logprobs, reason, cached, error))
                if reason:
                    del self._tags[request], self._requests[tag]
                    self._constraints.drop(request)
        return found


def _ended_before() -> RequestError:
    return RequestError("The request was ended before it began.", 499)


def _check_device(model: Model) -> None:
    """ConfigError where texts would not be written on the GPU on which the model is."""
    if model.device == "cpu":
        return
    why = _core.why_not_on_gpu(model.config.core().values())
    if why:
        raise ConfigError(
            f"The model cannot be served from {model.device}: {why}. Serve it on the CPU: device "
            "cpu."
        )
    if model.adapters:
        raise ConfigError(
            f"Adapters are chosen for each request on the CPU alone, and the model is on "
            f"{model.device}. Serve it on the CPU, or make one part of the model with "
            "merge_adapters() or `omnima merge`."
        )


class _Resting:
    """No adapter of a model is in use from here to `end()`, to that of the last one of several."""

    _before: ClassVar[WeakKeyDictionary[Model, dict[str, float]]] = WeakKeyDictionary()
    _count: ClassVar[WeakKeyDictionary[Model, int]] = WeakKeyDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, model: Model) -> None:
        self._model = model
        with self._lock:
            if not self._count.get(model):
                self._before[model] = model.adapters_in_use
            if model.adapters:
                model.set_adapters({})
            self._count[model] = self._count.get(model, 0) + 1

    def end(self) -> None:
        """Use those again that were in use, unless others were chosen since."""
        model = self._model
        with self._lock:
            self._count[model] -= 1
            if self._count[model] or model.adapters_in_use:
                return
            before = self._before.pop(model)
            if left := {name: before[name] for name in before if name in model.adapters}:
                model.set_adapters(left)


def _constrain(
    lock: threading.Lock,
    constraints: Constraints,
    requests: list[int],
    new_ids: list[list[int]],
    masks: Any,
) -> list[str]:
    with lock:  # submit() may be about to say what a new request is held to
        pass
    return constraints.fill(requests, new_ids, masks)


class LocalEngine:
    """An :class:`Engine` of this process, for an event loop."""

    def __init__(self, model: Model, options: EngineOptions, stop_ids: Sequence[int]) -> None:
        self._engine = Engine(model, options, stop_ids)
        self.context, self.vocab_size = self._engine.context, self._engine.vocab_size
        self.adapters, self.memory_bytes = self._engine.adapters, self._engine.memory_bytes

    async def begin(self, listener: Listener, died: Callable[[], object]) -> None:
        """Start; events go to the listener, on this event loop. It dies with the process alone."""
        loop = asyncio.get_running_loop()

        def tell(events: Sequence[Event]) -> None:
            try:
                loop.call_soon_threadsafe(listener, events)
            except RuntimeError:
                if not loop.is_closed():  # else nobody waits for these any more
                    raise

        self._engine.begin(tell)

    async def submit(self, tag: int, job: Job) -> None:
        """Take a job."""
        if job.grammar is None:
            self._engine.submit(tag, job)
        else:  # compiling may take a while, and leaves the interpreter free
            self._engine.expect(tag)
            await asyncio.to_thread(self._engine.submit, tag, job)

    def cancel(self, tag: int) -> None:
        """End a job."""
        self._engine.cancel(tag)

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        """Return the mean of the last hidden states."""
        return await asyncio.to_thread(self._engine.embed, ids, adapter)

    async def stats(self) -> dict[str, float]:
        """Return the scheduler's figures."""
        return self._engine.stats()

    async def close(self) -> None:
        """End all jobs, and the engine."""
        self.end()  # here: at the interpreter's end no thread can be had

    def end(self) -> None:
        """The same without an event loop."""
        self._engine.close()
