"""The page for everybody: dark and light, by keyboard alone, read aloud, and on a small screen."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import shot, watched
from .test_chat import ask, certain, changed, done, slow

STYLE = "getComputedStyle(document.activeElement)"
# Nothing fades in or slides any more.
SETTLED = """() => Promise.all(document.getAnimations()
    .filter(each => each.effect.getComputedTiming().endTime < Infinity)
    .map(each => each.finished.catch(() => null)))"""
TABS = ("Chat", "Compare", "Training")


def opened_tab(page: Any, name: str) -> None:
    """Wait until a tab is the one that is shown."""
    page.get_by_role("tab", name=name, selected=True).wait_for()
    first = {"Chat": "chat-message", "Compare": "compare-message", "Training": "training-text"}
    page.locator(f"#{first[name]} textarea").wait_for()


def broken(page: Any, where: str) -> list[Any]:
    """Rules of accessibility that the page breaks as it stands, once it stands still."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    page.evaluate(SETTLED)
    shot(page, where)
    found = axe.Axe().run(page).response["violations"]
    return [(where, each["id"], each["nodes"][0]["html"][:200]) for each in found]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(
    browser: Any, place: Any, scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 1000}, color_scheme=scheme, reduced_motion="reduce"
    )
    looks = f"{scheme}-{width}"
    for page in watched(context, place.url):
        assert page.locator("body.dark").count() == (scheme == "dark")
        certain(page)
        ask(page, "To be")
        for tab in TABS:
            page.get_by_role("tab", name=tab).click()
            if tab == "Compare":
                ask(page, "To be", "compare")
                page.get_by_role("button", name="System prompt and parameters").click()
            opened_tab(page, tab)
            assert broken(page, f"{tab.lower()}-{looks}") == []
        page.get_by_role("button", name="Start").click()
        page.locator("#training-status .error").wait_for()
        assert broken(page, f"refused-{looks}") == []
        page.get_by_role("tab", name="Chat").click()
        opened_tab(page, "Chat")
        page.get_by_role("button", name="Edit your message").click()
        assert broken(page, f"editing-{looks}") == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Copy your message").click()
        page.locator("#turns-said").get_by_text("copied").wait_for()
        page.locator("#chat-log-0 .token").first.focus()
        page.locator("#token-tip").wait_for()
        assert broken(page, f"tip-{looks}") == []
        slow(page)
        # Thousands of coloured tokens would take longer to check than to write.
        page.get_by_label("Colour tokens by probability").first.uncheck()
        page.wait_for_function("!document.querySelector('#chat-log-0 .token')")
        assert broken(page, f"writing-{looks}") == []
        page.get_by_role("button", name="Stop").first.click()
        page.get_by_text("(stopped by you)").wait_for()


def test_what_is_said_is_read_out(opened: Any) -> None:
    page = opened
    page.evaluate(
        "() => { window.heard = [];"
        " const place = document.querySelector('#chat-status [role=status]');"
        " new MutationObserver(() => window.heard.push(place.innerText))"
        ".observe(place, {childList: true, subtree: true, characterData: true}); }"
    )
    ask(page, "To be")
    heard = page.evaluate("window.heard")
    assert any("Writing" in each for each in heard)
    assert "tiny says: " in heard[-1]
    assert not any(re.search(r"queue|processing", each) for each in heard)
    snapshot = page.locator("#chat-status").aria_snapshot()
    assert "status" in snapshot


def test_every_control_has_a_name(opened: Any) -> None:
    for tab in TABS:
        opened.get_by_role("tab", name=tab).click()
        nameless = opened.evaluate(
            """() => [...document.querySelectorAll("input, textarea, button, [tabindex='0']")]
            .filter(each => each.offsetParent && !(
                each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") ||
                (each.labels && each.labels.length) || each.innerText.trim()))
            .map(each => each.outerHTML.slice(0, 200))"""
        )
        assert nameless == []


def tab_to(page: Any, what: str) -> None:
    """Press Tab until an element has the focus; it must be seen that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            assert page.evaluate(f"parseFloat({STYLE}.outlineWidth)") >= 2
            return
    raise AssertionError(f"{what} is not reached by Tab")


def offered(page: Any, name: str) -> None:
    """Wait until the open list would choose this at Enter: it takes a moment to be ready."""
    page.wait_for_function(
        """name => {
            const id = document.activeElement.getAttribute("aria-activedescendant");
            return id && document.getElementById(id)?.getAttribute("aria-label") === name;
        }""",
        arg=name,
    )


def test_the_keyboard_is_enough(opened: Any) -> None:
    page = opened
    tab_to(page, "[role=tab]")
    tab_to(page, "#chat-model-0 input")
    offered(page, "tiny")
    page.keyboard.press("ArrowDown")
    offered(page, "other")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#chat-model-0 input')?.value === 'other'")
    tab_to(page, "#chat-message textarea")
    page.keyboard.type("To be")
    page.keyboard.press("Enter")
    done(page, 1)
    answer = page.locator("#chat-log-0 .history article").last
    assert answer.get_attribute("aria-label") == "other"
    before = answer.inner_text()
    tab_to(page, "#chat-again")
    page.keyboard.press("Enter")
    changed(page, before)
    page.locator("#chat-message textarea").focus()
    page.keyboard.type("and more")
    page.keyboard.press("Enter")
    done(page, 2)
    page.locator("body").click(position={"x": 2, "y": 2})
    tab_to(page, ".tokens .token")
    page.keyboard.press("ArrowRight")
    assert page.locator("#token-tip").is_visible()
    page.evaluate("document.querySelector('#theme').focus()")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator("#training-text textarea").wait_for()
    tab_to(page, "#training-text textarea")
    tab_to(page, "#text-file")
    tab_to(page, "#training-start")


def test_dark_and_light_are_a_choice_that_is_remembered(opened: Any) -> None:
    page = opened
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Dark or light").click()
    page.locator("body.dark").wait_for()
    assert page.evaluate(colour) != light
    page.reload()
    page.get_by_role("textbox", name="Message").first.wait_for()
    page.locator("body.dark").wait_for()
    page.get_by_role("button", name="Dark or light").click()
    page.wait_for_function("!document.body.classList.contains('dark')")


def test_a_small_screen_needs_no_scrolling_aside(browser: Any, place: Any) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    for page in watched(context, place.url):
        ask(page, "To be")
        for tab in TABS:
            page.get_by_role("tab", name=tab).click()
            opened_tab(page, tab)
            shot(page, f"{tab.lower()}-small")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
