"""The page in a real Chromium: chat, stop, another answer, side by side, tokens."""

from __future__ import annotations

import time
from typing import Any

from .conftest import shot


def ask(page: Any, text: str, tab: str = "chat") -> None:
    """Write a message and wait for the end of its answers."""
    before = answers(page, tab)
    page.locator(f"#{tab}-message textarea").fill(text)
    page.locator(f"#{tab}-message textarea").press("Enter")
    done(page, before + 1, tab)


def answers(page: Any, tab: str = "chat") -> int:
    """How many there are in all of a tab's conversations."""
    return int(page.locator(f"[id^={tab}-log] .history article.assistant").count())


def done(page: Any, least: int, tab: str = "chat") -> None:
    """Wait until there are so many answers, and none is written any more."""
    page.wait_for_function(
        """([tab, least]) => document.querySelectorAll(
            `[id^=${tab}-log] .history article.assistant`).length >= least
            && !document.querySelector(`[id^=${tab}-log] .growing article`)
            && document.querySelector(`#${tab}-status`).innerText.includes("tokens in")""",
        arg=[tab, least],
    )


def changed(page: Any, before: str) -> None:
    """Wait until the last turn of the chat is another answer."""
    page.wait_for_function(
        """before => {
            const last = document.querySelector("#chat-log-0 .history article:last-child");
            return last && last.matches(".assistant") && last.innerText !== before;
        }""",
        arg=before,
    )


def choose(page: Any, what: str, name: str) -> None:
    """Choose from a list by its label."""
    page.get_by_label(what, exact=True).click()
    page.get_by_role("option", name=name, exact=True).click()


def turns(page: Any, log: str = "chat-log-0") -> Any:
    return page.locator(f"#{log} .history article")


def test_a_conversation(opened: Any) -> None:
    page = opened
    assert page.title() == "Omnima demo"
    assert page.locator("html").get_attribute("lang") == "en"
    ask(page, "To <b>be</b> & not")
    assert turns(page).count() == 2
    assert turns(page).first.get_by_text("To <b>be</b> & not").count() == 1
    assert page.locator("#chat-log-0 b").count() == 0
    assert page.locator("#chat-message textarea").input_value() == ""
    ask(page, "and more")
    assert turns(page).count() == 4
    answer = turns(page).last.inner_text()
    page.get_by_role("button", name="Regenerate").first.click()
    changed(page, answer)
    assert turns(page).count() == 4
    choose(page, "Adapter", "bard")
    ask(page, "with the adapter")
    assert turns(page).last.get_attribute("aria-label") == "tiny with bard"
    shot(page, "chat-light")

    page.get_by_label("Colour tokens by probability").first.uncheck()
    page.wait_for_function("!document.querySelector('#chat-log-0 .token')")
    assert turns(page).count() == 6

    # The context of 256 tokens is full: the page says so, and what to do.
    for _ in range(3):
        ask(page, "or not to be, that is the question " * 2)
    status = page.locator("#chat-status").inner_text()
    assert "no longer fit the context of 256 tokens" in status and "Begin a new chat" in status
    page.get_by_role("button", name="New chat").first.click()
    page.get_by_text("A new chat has begun.").wait_for()
    assert turns(page).count() == 0


def certain(page: Any) -> None:
    """From now on the likeliest tokens are written: they go on and on, no answer is empty."""
    page.get_by_label("number input for Temperature").first.fill("0")


def slow(page: Any) -> None:
    """Ask for a long answer of the slow model, and wait for its first tokens."""
    choose(page, "Model", "slow")
    page.get_by_label("number input for New tokens at most").first.fill("2000")
    certain(page)
    page.locator("#chat-message textarea").fill("To be")
    page.keyboard.press("Enter")
    page.locator("#chat-log-0 .growing .token").nth(3).wait_for()


def test_stop_ends_an_answer_and_keeps_it(opened: Any) -> None:
    page = opened
    slow(page)
    shot(page, "chat-writing")
    stop = page.get_by_role("button", name="Stop").first
    stop.click()
    page.get_by_text("(stopped by you)").wait_for()
    assert 0 < turns(page).last.locator(".token").count() < 1000
    assert stop.evaluate("each => each === document.activeElement")  # focus stays where it was


def test_a_browser_that_goes_ends_its_answer(opened: Any, place: Any) -> None:
    service = place._parts.models.find("slow").service
    slow(opened)
    assert service.runs == 1
    opened.goto("about:blank")
    end = time.monotonic() + 30
    while service.runs and time.monotonic() < end:
        opened.wait_for_timeout(50)
    assert service.runs == 0


def test_two_models_side_by_side(opened: Any) -> None:
    page = opened
    page.get_by_role("tab", name="Compare").click()
    choose(page, "Left adapter", "bard")
    ask(page, "To be", "compare")
    left, right = turns(page, "compare-log-0"), turns(page, "compare-log-1")
    assert (left.count(), right.count()) == (2, 2)
    assert left.last.get_attribute("aria-label") == "tiny with bard"
    assert right.last.get_attribute("aria-label") == "other"
    boxes = left.last.bounding_box(), right.last.bounding_box()
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    shot(page, "compare-light")


def shown_beside(page: Any, token: Any) -> None:
    """What else was likely stands beside the token that has the focus, wherever that scrolled."""
    # Long enough for the news of scrolling, which comes after the focus.
    page.evaluate("() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))")
    tip = page.locator("#token-tip")
    tip.wait_for()
    box, of = tip.bounding_box(), token.bounding_box()
    gap = max(box["y"] - of["y"] - of["height"], of["y"] - box["y"] - box["height"])
    assert abs(gap) < 60, (box, of)


def test_tokens_by_mouse_and_by_key(opened: Any) -> None:
    page = opened
    certain(page)
    ask(page, "To be")
    tokens = turns(page).last.locator(".token")
    log = page.locator("#chat-log-0")
    tip = page.locator("#token-tip")
    tokens.nth(4).hover()
    tip.wait_for()
    rows = tip.locator("tr")
    assert rows.count() == 6
    likeliest = rows.nth(1).locator("td").all_inner_texts()
    label = tokens.nth(4).get_attribute("aria-label")
    assert likeliest[1] in label.split("likeliest: ")[1].split(",")[0]
    shot(page, "token-tip")
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")

    # By key: one of the list is reached by Tab from what stands before it, the question's buttons.
    log.focus()
    for _ in ("Copy", "Edit", "tokens"):
        page.keyboard.press("Tab")
    assert tokens.first.evaluate("each => each === document.activeElement")
    shown_beside(page, tokens.first)
    for key, at in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("PageDown", 11)]:
        page.keyboard.press(key)
        assert tokens.nth(at).evaluate("each => each === document.activeElement")
        assert tokens.nth(at).get_attribute("aria-selected") == "true"
    page.keyboard.press("End")
    assert tokens.last.evaluate("each => each === document.activeElement")
    shown_beside(page, tokens.last)
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("Home")
    shown_beside(page, tokens.first)
    assert tokens.first.get_attribute("tabindex") == "0"
    assert tokens.nth(1).get_attribute("tabindex") == "-1"
    # What a screen reader is told of the token that has the focus.
    option = page.get_by_role("listbox").last.get_by_role("option").first
    assert "likeliest" in option.aria_snapshot()
