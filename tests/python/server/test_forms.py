"""Answers in OpenAI's form when the model itself decides to call a function."""

from __future__ import annotations

import json
from typing import Any

import pytest

import omnima
from omnima.errors import OmnimaError
from omnima.server import running
from omnima.server.forms import DONE, Form, Spelling
from omnima.server.jobs import Job
from omnima.server.prepare import Prepared
from omnima.server.service import Piece, TextRequest

CALL = '<tool_call>{"name": "now", "arguments": {"zone": "é"}}</tool_call>'


@pytest.fixture(scope="module")
def spelling() -> Spelling:
    return Spelling(omnima.Tokenizer.train(["to be"], "byte"))


class Counted:
    """What a form asks of a run."""

    prompt_tokens, new_tokens, cached_tokens = 5, 7, 2


def pieces(text: str, step: int, reason: str = "stop") -> list[Piece]:
    cut = [text[i : i + step] for i in range(0, len(text), step)]
    return [Piece(0, each, [], "") for each in cut] + [Piece(0, "", [], reason)]


def form(spelling: Spelling, counts: bool = False) -> Form:
    prepared = Prepared(TextRequest([Job([1], {})]), "tiny", ["now"])
    return Form(prepared, spelling, chat=True, counts=counts)


def streamed(made: Form, text: str, step: int, reason: str = "stop") -> list[Any]:
    run: Any = Counted()
    body = made.opening() + b"".join(map(made.piece, pieces(text, step, reason)))
    body += made.closing(run)
    assert body.endswith(DONE)
    return [json.loads(each.removeprefix(b"data: ")) for each in body.split(b"\n\n")[:-2]]


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_words_before_a_call_are_content(spelling: Spelling, step: int) -> None:
    chunks = streamed(form(spelling), "One moment. " + CALL, step)
    deltas = [each["choices"][0]["delta"] for each in chunks]
    assert "".join(each.get("content") or "" for each in deltas) == "One moment. "
    [told] = [each["tool_calls"] for each in deltas if "tool_calls" in each]
    assert told[0]["index"] == 0 and told[0]["function"]["name"] == "now"
    assert json.loads(told[0]["function"]["arguments"]) == {"zone": "é"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("text", ["No call.", "a < b <tool_ca", '{"name": "other"}'])
def test_without_a_call_all_is_content(spelling: Spelling, text: str) -> None:
    chunks = streamed(form(spelling), text, 2)
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("text,count", [(CALL, 1), (CALL * 2, 2), ("No call.", 0)])
def test_whole_answers_say_the_same(spelling: Spelling, text: str, count: int) -> None:
    made = form(spelling)
    for piece in pieces(text, 3):
        made.take(piece)
    run: Any = Counted()
    answer = json.loads(made.whole(run))
    choice = answer["choices"][0]
    assert len(choice["message"].get("tool_calls", [])) == count
    assert choice["message"]["content"] == (None if count else text)
    assert choice["finish_reason"] == ("tool_calls" if count else "stop")
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_each_token_reaches_the_stream_by_itself(spelling: Spelling) -> None:
    prepared = Prepared(TextRequest([Job([1], {})]), "tiny")
    made = Form(prepared, spelling, chat=True, counts=True)
    chunks = streamed(made, 'é"\n🙂\u2028', 1, "length")
    contents = [each["choices"][0]["delta"].get("content") for each in chunks if each["choices"]]
    assert contents == ["", *'é"\n🙂\u2028', None]
    assert [each["usage"] for each in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 12


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_EXTRA", ("json", "no_such_module"))
    with pytest.raises(OmnimaError, match=r"no_such_module.*omnima\[serve\]"):
        running.check_extra()
