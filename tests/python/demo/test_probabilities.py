"""Tokens in colour: whole characters, escaped texts, labels that say all that the colours say."""

from __future__ import annotations

import json
import math
import re
from html import unescape

import pytest

from omnima import Tokenizer
from omnima.demo.probabilities import Token, Tokens, legend_html, level, token_html
from omnima.demo.transcript import Turn, growing_html, turn_html


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["aé日"], "byte")


def known(tokenizer: Tokenizer, text: str) -> list[tuple[int, float, list[tuple[int, float]]]]:
    ids = tokenizer.encode(text)
    return [(id, math.log(0.5), [(id, math.log(0.5)), (ids[0], math.log(0.25))]) for id in ids]


def test_parts_of_a_character_are_one_token(tokenizer: Tokenizer) -> None:
    tokens = Tokens(tokenizer)
    found = [each for one in known(tokenizer, "a日é") for each in tokens.take([one])]
    assert [each.text for each in found] == ["a", "日", "é"]
    assert [each.probability for each in found] == pytest.approx([0.5, 0.125, 0.25])
    assert found[1].alternatives[0] == ("\\xe6", pytest.approx(0.5))
    assert tokens.finish() == []


def test_what_is_no_character_is_shown(tokenizer: Tokenizer) -> None:
    tokens = Tokens(tokenizer)
    half = known(tokenizer, "日")[:2]
    assert tokens.take(half) == []
    [left] = tokens.finish()
    assert left.text == "\\xe6\\x97"
    [broken] = Tokens(tokenizer).take([half[1]])
    assert broken.text == "\\x97"
    [outside] = Tokens(tokenizer).take([(9999, 0.0, [(9999, 0.0)])])
    assert outside.text == "?" and outside.alternatives == (("id 9999", 1.0),)


def test_a_token_is_an_option_that_says_all() -> None:
    html = token_html(Token('<i>"', 0.2, (("&", 0.6), (" ", 0.05))), first=True)
    assert "<i>" not in html and 'tabindex="0"' in html and "level-1" in html
    label = unescape(re.search(r'aria-label="([^"]*)"', html)[1])  # type: ignore[index]
    assert label == '“<i>"”, 20%; likeliest: “&” 60%, space 5.0%'
    likeliest = unescape(re.search(r'data-likeliest="([^"]*)"', html)[1])  # type: ignore[index]
    assert json.loads(likeliest) == [["&", 0.6], [" ", 0.05]]
    end = token_html(Token("\n", 0.001, ()))
    assert end.endswith("\u23ce\n</span>") and "line end, 0.1%" in end and 'tabindex="-1"' in end


def test_colours_go_from_sure_to_surprising() -> None:
    assert [level(p) for p in (1.0, 0.5, 0.3, 0.1, 0.02, 0.001)] == [0, 0, 1, 2, 3, 4]
    assert all(f"level-{number}" in legend_html() for number in range(5))


def test_turns_are_escaped_and_heard_in_one_piece() -> None:
    evil = "<script>alert(1)</script>"
    question = turn_html(Turn("user", evil), True)
    answer = Turn("assistant", evil, f"{evil}", [Token(evil, 0.5, ((evil, 0.5),))], "stopped")
    for html in (question, turn_html(answer, True), turn_html(answer, False)):
        assert "<script" not in html and "&lt;script&gt;" in html
    assert '<p class="sr-only text">&lt;script' in turn_html(answer, True)
    assert "stopped by you" in answer.drawn(True) and answer.drawn(True) is answer.drawn(True)
    assert "(nothing)" in turn_html(Turn("assistant", who="a"), True)


def test_what_grows_begins_with_what_was() -> None:
    turn = Turn("assistant", who="a")
    before = {True: "", False: ""}
    for text in ("To", " be", "\n"):
        turn.text += text
        turn.tokens.append(Token(text, 0.5, ()))
        for coloured in (True, False):
            now = growing_html(turn, coloured)
            assert now.startswith(before[coloured]) and 'aria-busy="true"' in now
            before[coloured] = now
