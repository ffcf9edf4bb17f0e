"""In a real Chromium: what was said is copied, saved, and said differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import shot
from .test_chat import ask, certain, slow, turns

DENIED = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')); }"
MINE = "To <be>,\n  or *not*?"


def pasted(page: Any) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def said(page: Any, text: str) -> None:
    """Wait until a screen reader is told so."""
    page.locator("#turns-said[role=status]").get_by_text(text, exact=True).wait_for()


@pytest.fixture
def chatting(opened: Any) -> Any:
    """A chat of one message, in a browser that lets what was copied be read."""
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    certain(opened)
    ask(opened, MINE)
    return opened


def test_messages_and_answers_are_copied(chatting: Any) -> None:
    page = chatting
    page.get_by_role("button", name="Copy your message “To <be>, or *not*?”").click()
    said(page, "The message is copied.")
    assert pasted(page) == MINE
    answer = page.get_by_role("button", name="Copy the answer of tiny")
    answer.focus()
    page.keyboard.press("Enter")
    said(page, "The answer is copied.")
    coloured = pasted(page)
    assert coloured and answer.text_content() == "Copied"
    assert answer.evaluate("each => each === document.activeElement")
    page.wait_for_function("document.querySelector('.turn.assistant .copy')?.innerText === 'Copy'")
    # The same words without colours, where they stand once only.
    page.get_by_label("Colour tokens by probability").first.uncheck()
    page.wait_for_function("!document.querySelector('#chat-log-0 .token')")
    page.get_by_role("button", name="Copy the answer of tiny").click()
    said(page, "The answer is copied.")
    assert pasted(page) == coloured == turns(page).last.locator(".said").text_content()


def test_a_browser_without_a_clipboard_copies_all_the_same(chatting: Any) -> None:
    page = chatting
    page.evaluate(DENIED)
    page.get_by_role("button", name="Copy your message").click()
    said(page, "The message is copied.")
    assert pasted(page) == MINE
    page.evaluate("() => { document.execCommand = () => false; }")
    page.get_by_role("button", name="Copy your message").click()
    said(page, "The browser does not let this page copy: mark the text.")


def test_the_whole_conversation_is_copied_and_saved(chatting: Any) -> None:
    page = chatting
    ask(page, "and more")
    page.get_by_role("button", name="Copy conversation").first.click()
    said(page, "The conversation is copied.")
    whole = pasted(page)
    heads = [line for line in whole.splitlines() if line.startswith("## ")]
    assert heads == ["## You", "## tiny"] * 2
    assert whole.startswith(f"## You\n\n{MINE}\n\n## tiny\n\n")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save conversation").first.click()
    assert waiting.value.suggested_filename == "conversation.md"
    assert Path(waiting.value.path()).read_text(encoding="utf-8") == whole
    said(page, "The conversation is saved as conversation.md.")


def test_both_lanes_are_copied_and_nothing_is_nothing(opened: Any) -> None:
    page = opened
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="Compare").click()
    copy = page.locator("#compare-copy")
    copy.click()
    said(page, "Nothing has been said yet.")
    ask(page, "To be", "compare")
    copy.click()
    said(page, "The conversation is copied.")
    left, right = pasted(page).split("\n---\n")
    assert "## tiny\n" in left and "## other\n" in right and left.count("## You") == 1


def test_a_message_is_edited_by_keyboard(chatting: Any) -> None:
    page = chatting
    ask(page, "and more")
    edit = page.get_by_role("button", name="Edit your message “To <be>, or *not*?”")
    edit.focus()
    page.keyboard.press("Enter")
    area = page.get_by_role("textbox", name="Edit your message; what followed it leaves")
    assert area.input_value() == MINE
    assert area.evaluate("each => each === document.activeElement")
    shot(page, "editing")
    page.keyboard.type("changed")
    page.keyboard.press("Escape")
    assert area.count() == 0 and turns(page).count() == 4
    assert edit.evaluate("each => each === document.activeElement")

    page.keyboard.press("Enter")
    area.fill("   ")
    page.keyboard.press("Enter")
    said(page, "Write a message first.")
    assert area.count() == 1
    area.fill("Sing")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("loudly!")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#chat-log-0 .history article').length === 2")
    assert turns(page).first.locator(".said").text_content() == "Sing\nloudly!"
    message = page.locator("#chat-message textarea")
    assert message.evaluate("each => each === document.activeElement")
    ask(page, "and on")
    assert turns(page).count() == 4


def test_both_lanes_answer_an_edited_message(opened: Any) -> None:
    page = opened
    page.get_by_role("tab", name="Compare").click()
    for each in ("a", "b"):
        ask(page, each, "compare")
    page.locator("#compare-log-1").get_by_role("button", name="Edit your message “a”").click()
    page.locator(".editor textarea").fill("c")
    page.get_by_role("button", name="Send changes").click()
    for log in ("compare-log-0", "compare-log-1"):
        page.wait_for_function(
            "log => document.querySelectorAll(`#${log} .history article`).length === 2", arg=log
        )
        assert turns(page, log).first.locator(".said").text_content() == "c"


def test_what_cannot_be_edited_now_is_not_lost(opened: Any) -> None:
    page = opened
    ask(page, "a")
    slow(page)
    page.get_by_role("button", name="Edit your message “a”").click()
    area = page.locator(".editor textarea")
    area.fill("long thought about")
    page.get_by_role("button", name="Send changes").click()
    page.get_by_text("still being written").wait_for()
    assert area.input_value() == "long thought about"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop").first.click()
    page.get_by_text("(stopped by you)").wait_for()
