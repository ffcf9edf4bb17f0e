"""An earlier message said differently: what followed it leaves, and all lanes agree which it is."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

import omnima
import omnima.demo.talk as talk_module
from omnima.demo.talk import MESSAGE_CHARACTERS, Talk, Wish
from omnima.demo.transcript import Turn, turn_html

from .conftest import begun, made, made_slow
from .test_tabs import TAB, USUAL, last, tabs
from .test_talk import SHORT, all_of

WISH = Wish("tiny", options=SHORT)


def texts(talk: Talk) -> list[str]:
    return [turn.text for turn in talk.turns if turn.role == "user"]


def test_the_conversation_goes_on_from_the_changed_message(model: omnima.Model) -> None:
    async def run() -> None:
        async with begun(tiny=model) as models:
            talk, fresh = Talk(), Talk()
            for each in ("a", "b", "c"):
                await all_of(talk.say(models, WISH, each))
            await all_of(talk.edit(models, WISH, 2, "To be"))
            assert texts(talk) == ["a", "To be"] and len(talk.turns) == 4
            for each in ("a", "To be"):
                await all_of(fresh.say(models, WISH, each))
            assert talk.turns[-1].text == fresh.turns[-1].text
            # Numbers are not given twice: the next message is the fourth that was said.
            await all_of(talk.say(models, WISH, "d"))
            assert [turn.number for turn in talk.turns[::2]] == [1, 2, 4]

    asyncio.run(run())


@pytest.mark.parametrize(
    "number,text,why",
    [
        (1, "  ", "Write a message"),
        (1, "a" * (MESSAGE_CHARACTERS + 1), "Shorten it"),
        (2, "b", "message is not in this conversation"),
        (0, "b", "not in this conversation"),
        (1, "or not to be " * 60, "shorten it"),
    ],
)
def test_a_message_that_cannot_be_edited_stays(
    number: int, text: str, why: str, model: omnima.Model
) -> None:
    async def run() -> None:
        async with begun(tiny=model) as models:
            talk = Talk()
            await all_of(talk.say(models, WISH, "a"))
            before = list(talk.turns)
            await all_of(talk.edit(models, WISH, number, text))
            assert why in talk.failed and talk.turns == before and not talk.busy

    asyncio.run(run())


def test_a_message_that_is_no_longer_kept_is_said(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk_module, "TURNS", 4)

    async def run() -> None:
        async with begun(tiny=model) as models:
            talk = Talk()
            for each in ("a", "b", "b2"):
                await all_of(talk.say(models, WISH, each))
            await all_of(talk.edit(models, WISH, 1, "c"))
            assert "message is not in" in talk.failed
            await all_of(talk.edit(models, WISH, 2, "c"))
            assert texts(talk) == ["c"]

    asyncio.run(run())


def edited(**detail: Any) -> Any:
    """The event that a browser sends."""
    return gr.EventData(None, detail)


def test_all_lanes_edit_the_same_message(model: omnima.Model) -> None:
    async def run() -> None:
        async with tabs(tiny=model, other=made(seed=9)) as (_, compare, sessions):
            who, alone = ["tiny", "other", "none", "none"], ["tiny", "gone", "none", "none"]
            await last(compare.say(TAB, "only left", *alone, *USUAL, True))
            await last(compare.say(TAB, "both", *who, *USUAL, True))
            left, right = sessions.of("tab").compare
            assert (texts(left), texts(right)) == (["only left", "both"], ["both"])
            event = edited(number=2, text="To be")
            shown = await last(compare.edit(TAB, event, *who, *USUAL, True))
            assert (texts(left), texts(right)) == (["only left", "To be"], ["To be"])
            assert shown[4].count("tokens in") == 2
            event = edited(number=1, text="anew")
            shown = await last(compare.edit(TAB, event, *who, *USUAL, True))
            assert (texts(left), texts(right)) == (["anew"], ["To be"])
            assert "message is not in" in shown[4] and "tokens in" in shown[4]

    asyncio.run(run())


def test_an_event_that_is_none_of_the_pages_changes_nothing(model: omnima.Model) -> None:
    async def run() -> None:
        async with tabs(tiny=model) as (chat, _, sessions):
            asked = ["tiny", "none", *USUAL, True]
            await last(chat.say(TAB, "a", *asked))
            for detail in (None, [], {"number": "1", "text": "b"}, {"number": 1}):
                shown = await last(chat.edit(TAB, gr.EventData(None, detail), *asked))
                assert 'class="error"' in shown[2]
            assert texts(sessions.of("tab").chat[0]) == ["a"]

    asyncio.run(run())


def test_nothing_is_edited_while_an_answer_is_written() -> None:
    async def run() -> None:
        async with tabs(slow=made_slow()) as (chat, _, sessions):
            asked = ["slow", "none", "", 1500, 0.0, *USUAL[3:], True]
            first = chat.say(TAB, "To be", *asked)
            await anext(first)
            shown = await last(chat.edit(TAB, edited(number=1, text="b"), *asked))
            assert "still being written" in shown[2]
            await chat.stop(TAB)
            await last(first)
            assert texts(sessions.of("tab").chat[0]) == ["To be"]

    asyncio.run(run())


def test_the_buttons_of_a_turn_name_it() -> None:
    mine = turn_html(Turn("user", "To be,\n  " + "a" * 90, number=3), True)
    begins = "To be, " + "a" * 33
    assert f'aria-label="Edit your message “{begins}”" data-number="3">Edit<' in mine
    assert f'aria-label="Copy your message “{begins}”">Copy<' in mine
    answer = turn_html(Turn("assistant", "or not", 'a "b"'), True)
    assert 'aria-label="Copy the answer of a &quot;b&quot;">Copy<' in answer
    assert "Edit" not in answer and "<button" not in turn_html(Turn("assistant"), True)
