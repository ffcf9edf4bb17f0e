"""A conversation with a model: its history, what the model is shown of it, what it writes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omnima.demo.probabilities import ALTERNATIVES, Tokens
from omnima.demo.transcript import Turn
from omnima.errors import ConfigError, OmnimaError
from omnima.generation.fitting import newest_that_fit, room_for_history, unseen_sentence
from omnima.server.jobs import Job
from omnima.server.service import TextRequest

if TYPE_CHECKING:
    from omnima.demo.models import Models, Opened
    from omnima.server.service import Run

MESSAGE_CHARACTERS = 20_000  # of a message, and of a system prompt
TURNS = 400  # that a conversation keeps: older ones are no longer shown
FULL = (
    " Begin a new chat, lower “New tokens at most”, or go on: what is said last is always shown"
    " to it."
)
PLAIN = " It has no chat template and gets a plain one: it may not know what a conversation is."


@dataclass(frozen=True)
class Wish:
    """Who shall answer, and how.

    Attributes
    ----------
    model, adapter
        By name; no adapter: the model alone.
    system
        What the model is told before all messages; "": nothing.
    options
        Of the drawing, as :func:`omnima.generation.generate` names them.
    seed
        None: drawn.
    """

    model: str | None
    adapter: str | None = None
    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    @property
    def who(self) -> str:
        """What the answer is signed with."""
        return f"{self.model} with {self.adapter}" if self.adapter else str(self.model)


class _Answer:
    """An answer on its way; that of a chat that was left ends by itself, and changes no other.

    Attributes
    ----------
    turn
        What there is of it.
    history
        What is answered.
    run
        Of the engine, once it has begun.
    stopped
        Whether it is to end.
    note
        What the page says of it at its end.
    """

    def __init__(self, turn: Turn, history: Sequence[Turn]) -> None:
        self.turn, self.history = turn, history
        self.run: Run | None = None
        self.stopped, self.note = False, ""

    def stop(self) -> None:
        """End it; what there is of it stays."""
        self.stopped = True
        if self.run is not None:
            self.run.cancel()


class Talk:
    """A conversation.

    Attributes
    ----------
    turns
        The history, its newest `TURNS`.
    chats
        How many were begun: another one than before is not the same conversation.
    note
        What the page says of the last answer.
    failed
        Why there is no answer; "": there is.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.chats = 1
        self.note, self.failed = "", ""
        self._said = 0  # messages, also those that could not be answered: lanes count alike
        self._answer: _Answer | None = None

    @property
    def growing(self) -> Turn | None:
        """The answer that is being written; None: none is."""
        return None if self._answer is None else self._answer.turn

    @property
    def busy(self) -> bool:
        """Whether an answer is being prepared or written."""
        return self._answer is not None

    def clear(self) -> None:
        """Forget the history."""
        self.stop()
        self.turns, self._answer, self.note, self.failed = [], None, "", ""
        self._said = 0
        self.chats += 1

    def stop(self) -> None:
        """End the answer that is being written; what there is of it stays."""
        if self._answer is not None:
            self._answer.stop()

    async def say(self, models: Models, wish: Wish, text: str) -> AsyncGenerator[None, None]:
        """Say something; yields whenever there is more of the answer.

        What goes wrong stands in `failed`; the history is then as it was.
        """
        turns = list(self.turns)[2 - TURNS :]
        self._said += 1
        asked = [*turns, Turn("user", text, number=self._said)]
        async with aclosing(self._asked(models, wish, asked, turns)) as answer:
            async for _ in answer:
                yield

    async def edit(
        self, models: Models, wish: Wish, number: int, text: str
    ) -> AsyncGenerator[None, None]:
        """Say one's message of this number differently; what followed it leaves. As `say`."""
        turns = list(self.turns)
        places = [i for i, turn in enumerate(turns) if turn.role == "user"]
        place = next((i for i in places if turns[i].number == number), None)
        if place is None:
            self.failed = "The message is not in this conversation: it cannot be edited."
            return
        asked = [*turns[:place], Turn("user", text, number=number)]
        async with aclosing(self._asked(models, wish, asked, turns)) as answer:
            async for _ in answer:
                yield

    async def regenerate(self, models: Models, wish: Wish) -> AsyncGenerator[None, None]:
        """Throw the last answer away and write another one; as `say`."""
        turns, kept = list(self.turns), list(self.turns)
        while kept and kept[-1].role != "user":
            kept.pop()
        if not kept:
            self.failed = "There is no answer yet that could be written again."
            return
        async with aclosing(self._answered(models, wish, kept, turns)) as answer:
            async for _ in answer:
                yield

    async def _asked(
        self, models: Models, wish: Wish, turns: list[Turn], before: list[Turn]
    ) -> AsyncGenerator[None, None]:
        """Have the last of the turns, a message, answered where it is one."""
        text = turns[-1].text
        if not text.strip():
            self.failed = "Write a message first."
        elif len(text) > MESSAGE_CHARACTERS:
            self.failed = _too_long("message", text)
        else:
            async with aclosing(self._answered(models, wish, turns, before)) as answer:
                async for _ in answer:
                    yield

    async def _answered(
        self, models: Models, wish: Wish, turns: list[Turn], before: list[Turn]
    ) -> AsyncGenerator[None, None]:
        answer = _Answer(Turn("assistant", who=wish.who), turns)
        self.failed, self.note = "", ""
        self.turns, self._answer = turns, answer
        note = failed = ""
        try:
            yield  # the message is seen before anything is computed
            async with aclosing(_written(models, wish, answer)) as written:
                async for _ in written:
                    yield
            note = answer.note
        except OmnimaError as error:
            failed, answer.turn.ended = str(error), "failed"
        finally:
            if self._answer is answer:  # no new chat was begun meanwhile
                self._answer, self.note, self.failed = None, note, failed
                # What was written is not lost; where nothing was, the history is as it was.
                nothing = answer.turn.ended == "failed" and not answer.turn.text
                self.turns = before if nothing else [*turns, answer.turn]


async def _written(models: Models, wish: Wish, answer: _Answer) -> AsyncGenerator[None, None]:
    began = time.perf_counter()
    opened, turn = models.find(wish.model), answer.turn
    ids, unseen = await asyncio.to_thread(_prompt, opened, wish, answer.history)
    run = await opened.service.write(TextRequest([_job(opened, wish, ids)], held=1 << 22))
    answer.run = run
    tokens = Tokens(opened.tokenizer)
    turn.ended = "stopped"  # until it ends by itself
    try:
        if answer.stopped:
            run.cancel()
        while pieces := await run.next():
            for piece in pieces:
                turn.text += piece.text
                turn.tokens += tokens.take(piece.logprobs)
                if piece.reason:
                    turn.ended = "length" if piece.reason == "length" else ""
            yield
    finally:
        turn.tokens += tokens.finish()
        run.cancel()
    seconds = time.perf_counter() - began
    answer.note = (
        f"{turn.who}: {run.new_tokens} tokens in {seconds:.1f} s "
        f"({run.new_tokens / max(seconds, 1e-9):.0f} a second)."
    )
    if opened.plain:
        answer.note += PLAIN
    if unseen:
        answer.note += " " + unseen_sentence(unseen, opened.context) + FULL


def _prompt(opened: Opened, wish: Wish, history: Sequence[Turn]) -> tuple[list[int], int]:
    """The ids of what fits of the history, and how many messages do not."""
    if len(wish.system) > MESSAGE_CHARACTERS:
        raise ConfigError(_too_long("system prompt", wish.system))
    told = [{"role": "system", "content": wish.system}] if wish.system.strip() else []

    def encode(messages: Sequence[dict[str, Any]]) -> list[int]:
        ids = opened.tokenizer.apply_chat_template(
            [*told, *messages], add_generation_prompt=True, sanitize_control_tokens=True
        )
        assert isinstance(ids, list)
        return ids

    messages = [{"role": each.role, "content": each.text} for each in history]
    room = room_for_history(opened.context, _new_tokens(wish))
    return newest_that_fit(messages, encode, room, opened.context)


def _too_long(what: str, text: str) -> str:
    return (
        f"The {what} has {len(text):,} characters; at most {MESSAGE_CHARACTERS:,} are taken. "
        "Shorten it."
    )


def _new_tokens(wish: Wish) -> int:
    return int(wish.options.get("max_new_tokens", 256))


def _job(opened: Opened, wish: Wish, ids: list[int]) -> Job:
    options = {**wish.options, "max_new_tokens": min(_new_tokens(wish), opened.context - len(ids))}
    if wish.adapter is not None and wish.adapter not in opened.adapters:
        raise ConfigError(f"The model {wish.model} has no adapter {wish.adapter!r:.80}.")
    seed = secrets.randbits(62) if wish.seed is None else wish.seed
    if not 0 <= seed < 2**63:
        raise ConfigError(f"The seed is {seed}, but it is a whole number from 0 to 2**63 - 1.")
    return Job(ids, options, seed, opened.stop_ids, wish.adapter, ALTERNATIVES)
