"""Text of events, with an engine that writes what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

import omnima
from omnima.errors import QueueFullError
from omnima.server.errors import RequestError
from omnima.server.jobs import Event, Job, Listener
from omnima.server.service import Choice, Piece, Run, Service, TextRequest

END = 2


class Written:
    """Takes jobs, and tells what it is told to tell."""

    context, vocab_size, adapters = 512, 300, ()

    def __init__(self, room: int = 100) -> None:
        self.jobs: dict[int, Job] = {}
        self.cancelled: list[int] = []
        self.closed = False
        self._room = room

    async def begin(self, listener: Listener, died: Callable[[], object]) -> None:
        self.tell, self.die = listener, died

    async def submit(self, tag: int, job: Job) -> None:
        if len(self.jobs) >= self._room:
            raise QueueFullError("full")
        self.jobs[tag] = job

    def cancel(self, tag: int) -> None:
        self.cancelled.append(tag)

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        return [0.0]

    async def stats(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        self.closed = True


class Broken:
    """An assembler that fails."""

    stopped = False

    def push(self, _: int) -> str:
        raise TypeError("secret")


@pytest.fixture(scope="module")
def tokenizer() -> omnima.Tokenizer:
    return omnima.Tokenizer.train(["to be or not to be"], "byte")


def event(tag: int, ids: Sequence[int], reason: str = "", error: str = "") -> Event:
    return (tag, list(ids), [], reason, 0, error)


def request(count: int = 1, **more: Any) -> TextRequest:
    return TextRequest([Job([1], {}, stop_ids=[END]) for _ in range(count)], **more)


def play(
    tokenizer: omnima.Tokenizer,
    asked: TextRequest,
    script: Callable[[Written, Run], None],
    engine: Written | None = None,
) -> tuple[list[Piece], Written, RequestError | None]:
    """What a run gives while an engine follows a script."""
    written = engine or Written()

    async def main() -> tuple[list[Piece], RequestError | None]:
        service = Service(written, tokenizer)
        await service.begin()
        found: list[Piece] = []
        try:
            run = await service.write(asked)
            script(written, run)
            while more := await run.next():
                found += more
        except RequestError as error:
            return found, error
        finally:
            assert service.runs == 0
            await service.close()
            assert written.closed
        return found, None

    found, error = asyncio.run(main())
    return found, written, error


def ids(tokenizer: omnima.Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text)


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_characters_are_whole_however_tokens_come(tokenizer: omnima.Tokenizer, step: int) -> None:
    text = "é 日本 🙂 ok"
    all_ids = ids(tokenizer, text)

    def script(engine: Written, _: Run) -> None:
        for at in range(0, len(all_ids), step):
            engine.tell([event(0, all_ids[at : at + step])])
        engine.tell([event(0, [END], "eos")])

    pieces, _, error = play(tokenizer, request(), script)
    assert error is None and "".join(each.text for each in pieces) == text
    assert all("\ufffd" not in each.text for each in pieces)
    assert pieces[-1].reason == "stop"


def test_an_unfinished_character_is_shown_at_the_end(tokenizer: omnima.Tokenizer) -> None:
    def script(engine: Written, _: Run) -> None:
        engine.tell([event(0, ids(tokenizer, "ab🙂")[:4], "length")])

    pieces, _, _ = play(tokenizer, request(), script)
    assert "".join(each.text for each in pieces) == "ab\ufffd" and pieces[-1].reason == "length"


@pytest.mark.parametrize("step", [1, 4, 100])
def test_a_stop_string_ends_a_text_across_tokens(tokenizer: omnima.Tokenizer, step: int) -> None:
    all_ids = ids(tokenizer, "one two three four")

    def script(engine: Written, _: Run) -> None:
        for at in range(0, len(all_ids), step):
            engine.tell([event(0, all_ids[at : at + step])])
        engine.tell([event(0, [], "cancelled")])

    pieces, engine, error = play(tokenizer, request(stop=("thr", "four")), script)
    assert error is None and "".join(each.text for each in pieces) == "one two "
    assert pieces[-1].reason == "stop" and engine.cancelled == [0]


def test_choices_end_each_in_its_own_way(tokenizer: omnima.Tokenizer) -> None:
    def script(engine: Written, _: Run) -> None:
        engine.tell([event(0, ids(tokenizer, "a")), event(1, ids(tokenizer, "b"))])
        engine.tell([event(1, [END], "eos")])
        engine.tell([event(0, ids(tokenizer, "c"), "length"), event(99, [1])])

    pieces, engine, _ = play(tokenizer, request(2), script)
    texts = ["".join(p.text for p in pieces if p.choice == i) for i in (0, 1)]
    assert texts == ["ac", "b"]
    assert {p.choice: p.reason for p in pieces if p.reason} == {0: "length", 1: "stop"}
    assert engine.cancelled == []


@pytest.mark.parametrize("structured,status", [(None, 500), ("g", 400)])
def test_a_failed_choice_ends_its_request(
    tokenizer: omnima.Tokenizer, structured: str | None, status: int
) -> None:
    asked = TextRequest([Job([1], {}, grammar=structured), Job([1], {})])

    def script(engine: Written, _: Run) -> None:
        engine.tell([event(0, [], "error", "NaN in the logits")])

    _, engine, error = play(tokenizer, asked, script)
    assert error is not None and error.status == status
    assert ("NaN" in str(error)) == (status == 400)  # what goes wrong here is for the log
    assert 1 in engine.cancelled


def test_what_cannot_be_told_ends_its_request_alone(tokenizer: omnima.Tokenizer) -> None:
    def script(engine: Written, run: Run) -> None:
        other = Run(run._service, request())
        other.choices.append(Choice(other, 0, 7, other.request.jobs[0], cast(Any, Broken())))
        run._service._choices[7] = other.choices[0]
        engine.tell([event(7, [1]), event(0, ids(tokenizer, "a"), "length")])
        assert other._error is not None and other._error.status == 500
        assert "secret" not in str(other._error) and engine.cancelled == [7]

    pieces, _, error = play(tokenizer, request(), script)
    assert error is None and "".join(each.text for each in pieces) == "a"


def test_a_text_that_the_engine_ends_is_503(tokenizer: omnima.Tokenizer) -> None:
    def script(engine: Written, _: Run) -> None:
        engine.tell([event(0, [], "cancelled")])

    _, _, error = play(tokenizer, request(), script)
    assert error is not None and error.status == 503 and error.retry_after


def test_a_service_that_closes_ends_its_requests(tokenizer: omnima.Tokenizer) -> None:
    async def main() -> None:
        engine = Written()
        service = Service(engine, tokenizer)
        await service.begin()
        run = await service.write(request())
        await service.close()
        with pytest.raises(RequestError, match="shutting down"):
            await run.next()
        assert engine.cancelled == [0] and engine.closed and service.runs == 0

    asyncio.run(main())


def test_a_request_whose_task_is_cancelled_leaves_nothing(tokenizer: omnima.Tokenizer) -> None:
    class Hanging(Written):
        async def submit(self, tag: int, job: Job) -> None:
            await super().submit(tag, job)
            if tag == 1:
                await asyncio.sleep(60)

    async def main() -> None:
        engine = Hanging()
        service = Service(engine, tokenizer)
        await service.begin()
        task = asyncio.create_task(service.write(request(3)))
        while len(engine.jobs) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(engine.cancelled) == [0, 1] and service.runs == 0

    asyncio.run(main())


def test_a_dead_engine_is_503(tokenizer: omnima.Tokenizer) -> None:
    _, _, error = play(tokenizer, request(), lambda engine, _: engine.die())
    assert error is not None and error.status == 503 and error.retry_after


def test_what_nobody_reads_is_bounded(tokenizer: omnima.Tokenizer) -> None:
    def script(engine: Written, run: Run) -> None:
        for _ in range(60):
            engine.tell([event(0, ids(tokenizer, "x" * 10))])

    pieces, engine, error = play(tokenizer, request(held=100), script)
    assert error is not None and error.status == 499 and engine.cancelled == [0]
    assert sum(len(each.text) for each in pieces) <= 100


@pytest.mark.parametrize("room,early", [(2, False), (3, False), (3, True)])
def test_what_is_not_taken_is_not_counted(
    tokenizer: omnima.Tokenizer, room: int, early: bool
) -> None:
    counted: list[int] = []

    class Quick(Written):
        async def submit(self, tag: int, job: Job) -> None:
            await super().submit(tag, job)
            if early:  # all is written before write() has returned
                self.tell([event(tag, [END], "eos")])

    async def main() -> None:
        engine = Quick(room)
        service = Service(engine, tokenizer, lambda run: counted.append(run.new_tokens))
        await service.begin()
        try:
            run = await service.write(request(3))
            if not early:
                engine.tell([event(tag, [END], "eos") for tag in range(3)])
            while await run.next():
                pass
        except RequestError:
            pass
        assert service.runs == 0
        await service.close()

    asyncio.run(main())
    assert counted == ([] if room == 2 else [3])


def test_a_request_that_ends_while_it_is_taken_leaves_nothing(
    tokenizer: omnima.Tokenizer,
) -> None:
    class Dying(Written):
        async def submit(self, tag: int, job: Job) -> None:
            await super().submit(tag, job)
            self.die()

    engine = Dying()
    _, _, error = play(tokenizer, request(3), lambda *_: None, engine)
    assert error is not None and error.status == 503
    assert engine.cancelled == [0] and list(engine.jobs) == [0]


def test_of_a_request_that_is_not_taken_whole_nothing_is_written(
    tokenizer: omnima.Tokenizer,
) -> None:
    _, engine, error = play(tokenizer, request(3), lambda *_: None, Written(room=2))
    assert error is not None and error.status == 429 and error.retry_after
    assert {0, 1} <= set(engine.cancelled)


@pytest.mark.parametrize("gone_after,seconds,status", [(2, 60.0, 499), (99, 0.1, 504)])
def test_texts_are_embedded_while_somebody_waits(
    tokenizer: omnima.Tokenizer, gone_after: int, seconds: float, status: int
) -> None:
    read: list[int] = []

    class Slow(Written):
        async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
            read.append(ids[0])
            await asyncio.sleep(0.03)
            return [0.0]

    async def gone() -> bool:
        return len(read) >= gone_after

    async def main() -> None:
        service = Service(Slow(), tokenizer)
        with pytest.raises(RequestError) as error:
            await service.embed([[i] for i in range(50)], None, seconds, gone)
        assert error.value.status == status

    asyncio.run(main())
    assert len(read) == 2 if status == 499 else 1 <= len(read) < 10


class Gated(Written):
    """Embeds when it is let, and counts what it embeds at once."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.open = asyncio.Event()
        self.at_once = self.most = 0

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        self.begun.append(ids[0])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.shield(self.open.wait())
        self.at_once -= 1
        return [float(ids[0])]


async def quiet() -> None:
    """Let all that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_text_keeps_its_place_when_its_client_goes(tokenizer: omnima.Tokenizer) -> None:
    async def main() -> None:
        engine = Gated()
        service = Service(engine, tokenizer)
        calls = [asyncio.create_task(service.embed([[i], [i + 10]], None, 60.0)) for i in range(4)]
        await quiet()
        for each in calls[:3]:  # the first of them is being computed, the others wait
            each.cancel()
        await quiet()
        assert engine.begun == [0] and not calls[3].done()
        engine.open.set()
        assert await calls[3] == [[3.0], [13.0]]
        assert engine.begun == [0, 3, 13] and engine.most == 1
        assert all(each.cancelled() for each in calls[:3])

    asyncio.run(main())


def test_a_text_to_embed_waits_no_longer_than_a_request_may(tokenizer: omnima.Tokenizer) -> None:
    """Neither for its place nor for the engine; what was not begun is never."""

    async def main() -> None:
        engine = Gated()
        service = Service(engine, tokenizer)
        calls = [service.embed([[i]], None, 0.05) for i in range(3)]
        found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert [isinstance(each, RequestError) and each.status for each in found] == [504] * 3
        assert engine.begun == [0]
        engine.open.set()
        assert await service.embed([[7]], None, 60.0) == [[7.0]]
        assert engine.begun == [0, 7]

    asyncio.run(main())
