"""What a screen reader is given: an answer once, when it is done, and tokens with their numbers."""

from __future__ import annotations

import re
from typing import Any

from .test_chat import ask, certain, slow

# Keeps what every live region of the page says, each time that it says something else.
LISTEN = """() => {
    window.heard = [];
    const live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]";
    const last = new Map();
    new MutationObserver(changes => {
        for (const change of changes) {
            const at = change.target;
            const place = (at instanceof Element ? at : at.parentElement)?.closest(live);
            const text = place ? place.textContent.trim() : "";
            if (!place || last.get(place) === text) continue;
            last.set(place, text);
            if (text) window.heard.push(text);
        }
    }).observe(document, {childList: true, subtree: true, characterData: true});
}"""

OPTION = re.compile(r"- '?option ")
_SHARE = r"<?\d+(\.\d)?%"
TOLD = re.compile(rf"- '?option \".+, {_SHARE}; likeliest: (.+ {_SHARE}(, )?){{5}}\"")


def test_an_answer_is_announced_once_and_not_token_by_token(opened: Any) -> None:
    page = opened
    page.evaluate(LISTEN)
    slow(page)
    page.locator("#chat-log-0 .growing .token").nth(12).wait_for()
    assert page.locator("#chat-log-0 .growing article").get_attribute("aria-busy") == "true"
    assert page.evaluate("window.heard") == ["Writing …"]
    page.get_by_role("button", name="Stop").first.click()
    page.get_by_text("(stopped by you)").wait_for()
    page.locator("#chat-status").get_by_text("slow says:").wait_for(state="attached")
    heard = page.evaluate("window.heard")
    text = page.locator("#chat-log-0 .history .turn.assistant p.text").text_content()
    assert len(heard) == 2 and heard[1].count(f"slow says: {text.strip()}") == 1
    assert re.match(r"slow: \d+ tokens in", heard[1])


def test_colours_are_told_in_words(opened: Any) -> None:
    page = opened
    certain(page)
    ask(page, "To be")
    tree = page.get_by_role("region", name="Conversation", exact=True).aria_snapshot()
    assert '- article "You":' in tree and '- article "tiny":' in tree
    assert re.search(r"- paragraph: .*\n\s+- listbox \"Tokens of this answer", tree)
    options = [line for line in map(str.strip, tree.splitlines()) if OPTION.match(line)]
    assert len(options) == page.locator("#chat-log-0 .history .token").count() > 3
    assert [each for each in options if not TOLD.match(each)] == []
    buttons = re.findall(r"- button \"(.+)\"", tree)
    assert buttons == ["Copy your message “To be”", "Edit your message “To be”", *buttons[2:]]
    assert buttons[2:] == ["Copy the answer of tiny"]

    page.get_by_label("Colour tokens by probability").first.uncheck()
    page.wait_for_function("!document.querySelector('#chat-log-0 .token')")
    plain = page.get_by_role("region", name="Conversation", exact=True).aria_snapshot()
    assert "option" not in plain and "paragraph" in plain
