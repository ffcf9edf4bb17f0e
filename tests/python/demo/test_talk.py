"""A conversation: history, system prompt, another answer, stopping, a context that is full."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import omnima
import omnima.demo.talk as talk_module
from omnima.demo.models import Models
from omnima.demo.talk import MESSAGE_CHARACTERS, Talk, Wish
from omnima.server.errors import RequestError
from omnima.server.prepare import stop_ids_of

from .conftest import begun, made, made_slow

SHORT = {"max_new_tokens": 12, "temperature": 0.0}


async def all_of(stream: Any) -> int:
    return sum([1 async for _ in stream])


def said(model: omnima.Model, wish: Wish, *messages: str) -> Talk:
    async def run() -> Talk:
        async with begun(tiny=model) as models:
            talk = Talk()
            for each in messages:
                await all_of(talk.say(models, wish, each))
            return talk

    return asyncio.run(run())


def test_a_conversation_has_a_history(model: omnima.Model) -> None:
    talk = said(model, Wish("tiny", options=SHORT), "To be", "or not?")
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    assert [turn.text for turn in talk.turns[::2]] == ["To be", "or not?"]
    answer = talk.turns[-1]
    assert answer.who == "tiny" and not talk.busy
    assert "tokens in" in talk.note and talk.failed == ""
    assert len(answer.tokens) > 0 and len(answer.tokens[0].alternatives) == 5


def test_the_answer_is_the_engines(model: omnima.Model) -> None:
    from omnima.generation import generate

    talk = said(model, Wish("tiny", system="Be brief.", options=SHORT, seed=7), "To be")
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "To be"}]
    ids = model.tokenizer.apply_chat_template(told, add_generation_prompt=True)
    ends = stop_ids_of(model.tokenizer)
    [expected] = generate(model, model.tokenizer, [ids], stop_ids=ends, seed=7, **SHORT)
    assert talk.turns[-1].text == expected.text


def test_system_prompt_adapter_and_seed_change_the_answer(model: omnima.Model) -> None:
    options = {"max_new_tokens": 24, "temperature": 1.0}
    plain = said(model, Wish("tiny", options=options, seed=1), "To be").turns[-1].text
    assert said(model, Wish("tiny", options=options, seed=1), "To be").turns[-1].text == plain
    others = [
        Wish("tiny", options=options, seed=2),
        Wish("tiny", "bard", options=options, seed=1),
        Wish("tiny", system="Sing!", options=options, seed=1),
    ]
    for wish in others:
        answer = said(model, wish, "To be").turns[-1]
        assert answer.text != plain
        assert answer.who == ("tiny with bard" if wish.adapter else "tiny")


def test_another_answer_takes_the_place_of_the_last(model: omnima.Model) -> None:
    async def run() -> None:
        async with begun(tiny=model) as models:
            talk, wish = Talk(), Wish("tiny", options={"max_new_tokens": 16, "temperature": 1.0})
            await all_of(talk.regenerate(models, wish))
            assert "no answer yet" in talk.failed
            await all_of(talk.say(models, wish, "To be"))
            first = talk.turns[-1].text
            await all_of(talk.regenerate(models, wish))
            assert len(talk.turns) == 2 and talk.turns[-1].text != first
            talk.clear()
            assert talk.turns == [] and talk.note == ""

    asyncio.run(run())


def test_what_cannot_be_answered_changes_nothing(model: omnima.Model) -> None:
    good = {"max_new_tokens": 8}
    for wish, text, why in [
        (Wish("tiny"), "  ", "Write a message"),
        (Wish("tiny"), "a" * (MESSAGE_CHARACTERS + 1), "Shorten it"),
        (Wish("tiny", options=good), "or not to be " * 60, "shorten it"),
        (Wish("tiny", system="a" * (MESSAGE_CHARACTERS + 1)), "a", "The system prompt has"),
        (Wish("none of these"), "a", "no model 'none of these'"),
        (Wish(None), "a", "no model to choose"),
        (Wish("tiny", "nobody", options=good), "a", "no adapter 'nobody'"),
        (Wish("tiny", options=good, seed=-1), "a", "seed"),
    ]:
        talk = said(model, wish, text)
        assert why in talk.failed and talk.turns == [] and not talk.busy


def test_a_full_context_is_said(model: omnima.Model) -> None:
    messages = ["To be, or not to be, that is the question"] * 8
    talk = said(model, Wish("tiny", options={**SHORT, "max_new_tokens": 32}), *messages)
    assert len(talk.turns) == 16
    assert "no longer fit the context of 256 tokens" in talk.note
    assert "Begin a new chat" in talk.note


def test_a_conversation_keeps_its_newest_turns(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk_module, "TURNS", 4)
    talk = said(model, Wish("tiny", options=SHORT), "a", "b", "c")
    assert [turn.text for turn in talk.turns[::2]] == ["b", "c"] and len(talk.turns) == 4


def test_a_model_without_a_template_is_told_of() -> None:
    talk = said(made(template=None), Wish("tiny", options=SHORT), "To be")
    assert "no chat template" in talk.note and len(talk.turns) == 2


def test_the_slow_model_does_not_end_by_itself() -> None:
    wish = Wish("slow", options={"max_new_tokens": 120, "temperature": 0.0})

    async def run() -> Talk:
        async with begun(slow=made_slow()) as models:
            talk = Talk()
            await all_of(talk.say(models, wish, "To be"))
            return talk

    answer = asyncio.run(run()).turns[-1]
    assert answer.ended == "length" and answer.tokens


def test_stopping_keeps_what_is_written() -> None:
    async def run() -> None:
        async with begun(slow=made_slow()) as models:
            talk = Talk()
            wish = Wish("slow", options={"max_new_tokens": 1500, "temperature": 0.0})
            pieces = 0
            async for _ in talk.say(models, wish, "To be"):
                pieces += 1
                if pieces == 4:
                    assert talk.busy and talk.growing is not None
                    talk.stop()
            service = models.find("slow").service
            assert service.runs == 0 and talk.turns[-1].ended == "stopped"
            assert 1 <= len(talk.turns[-1].tokens) < 100

            # Nobody listens any more: the engine is let go, too.
            stream = talk.say(models, wish, "and on")
            for _ in range(3):
                await anext(stream)
            assert service.runs == 1
            await stream.aclose()
            assert service.runs == 0 and not talk.busy and len(talk.turns) == 4

            # A new chat while the old one is written.
            async for _ in talk.say(models, wish, "once more"):
                talk.clear()
            assert talk.turns == [] and service.runs == 0

            # Stopped before the engine has begun.
            async for _ in talk.say(models, wish, "once more"):
                talk.stop()
            assert talk.turns[-1].ended == "stopped" and service.runs == 0

    asyncio.run(run())


def test_a_new_chat_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, may_go = threading.Event(), threading.Event()
    encode = talk_module._prompt

    def held(*given: Any) -> Any:
        encoding.set()
        assert may_go.wait(60)
        return encode(*given)

    async def run() -> None:
        async with begun(slow=made_slow()) as models:
            talk, service = Talk(), models.find("slow").service
            wish = Wish("slow", options={"max_new_tokens": 1500, "temperature": 0.0})
            monkeypatch.setattr(talk_module, "_prompt", held)
            first = asyncio.create_task(all_of(talk.say(models, wish, "To be")))
            assert await asyncio.to_thread(encoding.wait, 60)
            talk.clear()
            monkeypatch.setattr(talk_module, "_prompt", encode)
            second = talk.say(models, wish, "or not")
            while not (talk.growing and talk.growing.text):
                await anext(second)
            may_go.set()
            await asyncio.wait_for(first, 60)
            assert service.runs == 1 and talk.busy  # the second one alone
            assert (talk.note, talk.failed) == ("", "")
            talk.stop()
            await all_of(second)
            assert [turn.text for turn in talk.turns][0] == "or not"
            assert talk.turns[-1].ended == "stopped" and service.runs == 0

    asyncio.run(run())


def test_an_engine_that_fails_is_told_of() -> None:
    async def run() -> None:
        async with begun(slow=made_slow()) as models:
            service = models.find("slow").service
            talk = Talk()
            wish = Wish("slow", options={"max_new_tokens": 1500, "temperature": 0.0})
            async for _ in talk.say(models, wish, "To be"):
                for each in list(service._runs):
                    each.fail(RequestError("It is over."))
            assert talk.failed == "It is over." and not talk.busy

    asyncio.run(run())


def test_models_are_added_and_refused(model: omnima.Model) -> None:
    async def run() -> list[str]:
        async with begun(tiny=model) as models:
            assert models.adapters("tiny") == ("bard",) and models.adapters("x") == ()
            assert await models.add("tiny", made(seed=8)) == "tiny-2"
            talk = Talk()
            await all_of(talk.say(models, Wish("tiny-2", options=SHORT), "To be"))
            assert talk.turns[-1].who == "tiny-2"
            return models.names

    assert asyncio.run(run()) == ["tiny", "tiny-2"]
    bare = made()
    bare.tokenizer = None
    with pytest.raises(omnima.errors.ConfigError, match="no tokenizer"):
        Models({"good": made(), "bare": bare})
