"""Calls parsed out of what models write, however it is cut."""

from __future__ import annotations

import json

import pytest

from omnima.server.tools import ToolParser

CALL = '{"name": "now", "arguments": {"zone": "é"}}'
FORMS = {
    "hermes": ("Let me see. ", f"<tool_call>\n{CALL}\n</tool_call>", 1),
    "two": ("", f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", 2),
    "list": ("", f"<tool_call>[{CALL}, {CALL}]</tool_call>", 2),
    "mistral": ("Yes. ", f"[TOOL_CALLS] [{CALL}]", 1),
    "llama": ("", CALL.replace("arguments", "parameters"), 1),
    "python": ("", "<|python_tag|>" + CALL, 1),
    "open": ("a", f"<tool_call>{CALL}", 1),
}


@pytest.mark.parametrize("name", ["[]", '["now"]', "{}", "null", "1"])
def test_a_name_that_is_no_text_is_no_call(name: str) -> None:
    text = f'<tool_call>{{"name": {name}, "arguments": {{}}}}</tool_call>'
    parser = ToolParser(["now"])
    assert parser.push(text) == "" and parser.finish() == (text, [])


def test_arguments_that_are_text_already_stay_as_they_are() -> None:
    parser = ToolParser(["now"])
    parser.push('<tool_call>{"name": "now", "arguments": "{\\"zone\\": 1}"}</tool_call>')
    [call] = parser.finish()[1]
    assert call.arguments == '{"zone": 1}'


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_calls_are_found(form: str, step: int) -> None:
    words, calls, count = FORMS[form]
    parser = ToolParser(["now"])
    text = words + calls
    released = "".join(parser.push(text[i : i + step]) for i in range(0, len(text), step))
    rest, found = parser.finish()
    assert released + rest == words
    assert len(found) == count and len({each.id for each in found}) == count
    for each in found:
        assert each.name == "now" and json.loads(each.arguments) == {"zone": "é"}


@pytest.mark.parametrize(
    "text",
    [
        "plain words, a < b and [TOOLS]",
        '{"a": 1}',
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        "<tool_call>{broken",
        "[1, 2]",
        "<tool_call>" + "[" * 100_000,
        "ends with <tool_ca",
        "   ",
    ],
)
@pytest.mark.parametrize("step", [1, 7])
def test_all_else_is_text(text: str, step: int) -> None:
    parser = ToolParser(["now"])
    released = "".join(parser.push(text[i : i + step]) for i in range(0, min(len(text), 300), step))
    released += parser.push(text[min(len(text), 300) + (-min(len(text), 300)) % step :])
    rest, calls = parser.finish()
    assert released + rest == text and calls == []
