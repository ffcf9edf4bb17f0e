"""The tabs' answers to events, without a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

import omnima
from omnima.demo.conversation import ConversationTab
from omnima.demo.progress import Progress
from omnima.demo.sessions import Sessions
from omnima.demo.settings import CONTROLS, wish_of
from omnima.demo.training import Training
from omnima.demo.training_tab import TrainingTab
from omnima.errors import ConfigError

from .conftest import begun, made, made_slow

TAB: Any = SimpleNamespace(session_hash="tab")
USUAL = ["", 16, *[each.usual for each in CONTROLS[1:]], "1"]


@asynccontextmanager
async def tabs(**models: omnima.Model) -> AsyncIterator[Any]:
    """The two tabs of conversations over the same models."""
    async with begun(**models) as held:
        sessions = Sessions()
        with gr.Blocks(analytics_enabled=False):
            chat = ConversationTab(held, sessions, "chat", [""])
            compare = ConversationTab(held, sessions, "compare", ["left", "right"])
        yield chat, compare, sessions


async def last(stream: Any) -> list[Any]:
    found: list[Any] = []
    async for each in stream:
        found = each
    return found


def test_a_chat_is_shown_while_it_is_written(model: omnima.Model) -> None:
    async def run() -> None:
        async with tabs(tiny=model) as (chat, _, _):
            seen = [each async for each in chat.say(TAB, "To <be>", "tiny", "none", *USUAL, True)]
            assert seen[0][0] == "" and seen[0][3] == "<p>Writing …</p>"
            assert "To &lt;be&gt;" in seen[0][1]
            _, history, growing, status, stop = seen[-1]
            assert 'role="listbox"' in history and growing == ""
            assert "tiny: " in status and 'class="sr-only">tiny says: ' in status
            assert stop["variant"] == "secondary"
            plain, _ = await chat.recolour(TAB, False)
            assert "listbox" not in plain and "To &lt;be&gt;" in plain
            again = await last(chat.regenerate(TAB, "tiny", "bard", *USUAL, False))
            assert "tiny with bard" in again[0] and again[0].count("<article") == 2
            cleared = await chat.clear(TAB)
            assert "Nothing has been said" in cleared[0] and "new chat" in cleared[2]
            assert "Nothing is being written" in await chat.stop(TAB)
            choices = (await chat.adapters_of("tiny"))["choices"]
            assert [each if isinstance(each, str) else each[0] for each in choices] == [
                "none",
                "bard",
            ]

    asyncio.run(run())


def test_two_models_answer_side_by_side(model: omnima.Model) -> None:
    async def run() -> None:
        async with tabs(tiny=model, other=made(seed=9)) as (_, compare, _):
            who = ["tiny", "other", "bard", "none"]
            shown = await last(compare.say(TAB, "To be", *who, *USUAL, True))
            assert "tiny with bard</h2>" in shown[1] and "other</h2>" in shown[3]
            assert shown[1].split("</h2>", 2)[2] != shown[3].split("</h2>", 2)[2]
            assert shown[5].count("tokens in") == 2
            # One that cannot: the other one answers all the same.
            shown = await last(compare.say(TAB, "To be", "tiny", "gone", *who[2:], *USUAL, True))
            assert 'class="error"' in shown[5] and "tokens in" in shown[5]

    asyncio.run(run())


def test_what_cannot_be_sent_is_said(model: omnima.Model) -> None:
    async def run() -> None:
        async with tabs(tiny=model) as (chat, _, _):
            shown = await last(chat.say(TAB, " ", "tiny", "none", *USUAL, True))
            assert "Write a message first" in shown[3]
            bad = ["", 16, "hot", *USUAL[3:]]
            shown = await last(chat.say(TAB, "a", "tiny", "none", *bad, True))
            assert "Temperature is &#x27;hot&#x27;" in shown[3]
        async with tabs() as (chat, _, _):
            shown = await last(chat.say(TAB, "a", None, "none", *USUAL, True))
            assert "There is no model to choose from; none is open" in shown[3]

    asyncio.run(run())


def test_a_second_message_waits_and_stop_ends_the_first() -> None:
    async def run() -> None:
        async with tabs(slow=made_slow()) as (chat, _, sessions):
            asked = ["slow", "none", "", 1500, 0.0, *USUAL[3:], True]
            first = chat.say(TAB, "To be", *asked)
            assert (await anext(first))[4]["variant"] == "stop"
            shown = await last(chat.say(TAB, "and more", *asked))
            assert "still being written" in shown[3]
            await chat.stop(TAB)
            assert "stopped by you" in (await last(first))[1]
            left = chat.say(TAB, "again", *asked)
            await anext(left)
            sessions.leave("tab")
            assert "stopped by you" in (await last(left))[1]

    asyncio.run(run())


def test_what_is_chosen_while_an_answer_is_written_holds_at_its_end() -> None:
    async def run() -> None:
        async with tabs(slow=made_slow()) as (chat, _, _):
            asked = ["slow", "none", "", 1500, 0.0, *USUAL[3:], True]
            stream = chat.say(TAB, "To be", *asked)
            while "listbox" not in (await anext(stream))[2]:
                pass
            await chat.recolour(TAB, False)
            await chat.stop(TAB)
            end = await last(stream)
            assert "stopped by you" in end[1] and "listbox" not in end[1]

            # A new chat: what was written for the old one shows nothing more.
            stream = chat.say(TAB, "and on", *asked)
            await anext(stream)
            await chat.clear(TAB)
            assert await last(stream) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "place,value,why",
    [(1, 0, "New tokens"), (2, 3.0, "Temperature"), (3, None, "Top p"), (7, "-1", "seed")],
)
def test_values_out_of_bounds_are_named(place: int, value: Any, why: str) -> None:
    values = list(USUAL)
    values[place] = value
    with pytest.raises(ConfigError, match=why):
        wish_of("tiny", "none", values)


def test_controls_become_options() -> None:
    wish = wish_of("tiny", "none", ["Sing!", 16, 0, 0, 3, 0.1, 1.5, " 7 "])
    assert (wish.model, wish.adapter, wish.system, wish.seed) == ("tiny", None, "Sing!", 7)
    assert wish.options["max_new_tokens"] == 16 and isinstance(wish.options["top_k"], int)
    assert 0 < wish.options["top_p"] < 0.001 and wish.options["repetition_penalty"] == 1.5


def test_a_trained_model_is_offered(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "mine")

    async def run() -> None:
        async with begun() as models:
            with gr.Blocks(analytics_enabled=False) as page:
                tab = TrainingTab(models, Training(tmp_path / "runs"))
                notice, dropdown = gr.HTML(), gr.Dropdown()
                tab.wire(page, gr.Tabs(), [notice], [dropdown])
            shown = await tab.look(("", 0))
            assert shown[5]["visible"] is False and shown[7]["visible"] is True
            shown = await tab.stop(("", 0))
            assert "Nothing is being trained" in shown[1]
            shown = await tab.start("short", "nima", 10, 0.1, 4, None, ("", 0))
            assert 'class="error"' in shown[1] and "at least 200" in shown[1]
            shown = await tab.start("short", "nima", "x", 0.1, 1, "", ("", 0))
            assert 'class="error"' in shown[1]

            progress = tab.training.progress = Progress("running", of=4, name="mine")
            progress.take({"steps": [{"step": 1, "loss": 3.0}], "of": 4})
            progress.take({"step": 1, "val_loss": 3.5})
            progress.take({"step": 1, "sample": "<i>"})
            shown = await tab.look(("", 0))
            assert "Step 1 of 4" in shown[2] and "<svg" in shown[3] and "&lt;i&gt;" in shown[4]
            done = {"done": str(tmp_path / "mine"), "steps_done": 1, "val_loss": None}
            progress.take({**done, "best_step": None, "samples": ["<i>", "b"]})
            assert progress.said.startswith("Stopped early")
            both = await asyncio.gather(tab.look(("", 0)), tab.look(("", 0)))
            assert models.names == ["mine"] and "“mine”" in both[0][1]
            seen, _, _, _, samples, chat, timer, notice_now, dropdown_now = both[1]
            assert seen == (progress.said, 1) and chat["visible"] and not notice_now["visible"]
            assert dropdown_now["value"] == "mine" and samples.count("After step") == 1
            tabs_now, choice = await tab.newest()
            assert tabs_now.selected == "chat" and choice["value"] == "mine"

            tab.training.progress = Progress("done", directory=str(tmp_path / "gone"), said="Done.")
            shown = await tab.look(seen)
            assert "cannot be opened" in shown[1] and 'class="error"' in shown[1]

    asyncio.run(run())
