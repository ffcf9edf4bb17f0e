"""Grammars that are refused, and what they cost."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

import omnima
from omnima.errors import ConfigError
from omnima.server import grammar
from omnima.server.expressions import written_out
from omnima.server.grammar import Constraints, Grammars


@pytest.fixture(scope="module")
def tokenizer() -> omnima.Tokenizer:
    return omnima.Tokenizer.train(['to be {"a": 1} é 日本'] * 3, "bpe")


@pytest.fixture(scope="module")
def grammars(tokenizer: omnima.Tokenizer) -> Grammars:
    return Grammars(tokenizer, 320, [2])


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema,said",
    [
        ({"type": "objekt"}, "objekt"),
        ({"$ref": "file:///etc/passwd"}, "only parts of the schema"),
        ({"items": [{"$ref": "https://x"}]}, "only parts of the schema"),
        (deep(40), "deeper than 32"),
        ({"enum": ["a" * 70_000]}, "limit is 65536"),
        ([1], "an object"),
        ({"properties": {"a": {"pattern": "(a{999}){999}"}}}, "limit is 20000"),
        ({"patternProperties": {"(a{999}){999}": {}}}, "limit is 20000"),
    ],
)
def test_schemas_that_are_refused(grammars: Grammars, schema: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        grammars.matcher(grammar.of_schema(schema))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "(" * 5000 + ")" * 5000,
        "(a|a)*" * 200 + "b",
        "[" * 1000,
        r"\p{L}{10000}",
        "((a{100}){100}){100}",
        "(x+x+)+y",
    ],
)
def test_expressions_cost_little_or_are_refused(grammars: Grammars, pattern: str) -> None:
    began = time.thread_time()
    masks = np.zeros((1, 10), np.int32)
    try:
        constraints = Constraints()
        constraints.add(1, grammars.matcher(grammar.of_regex(pattern)))
        constraints.fill([1], [[]], masks)
    except ConfigError as error:
        assert len(str(error)) < 500
    assert time.thread_time() - began < 1


def test_masks_hold_what_may_come_next(grammars: Grammars, tokenizer: omnima.Tokenizer) -> None:
    constraints = Constraints()
    constraints.add(7, grammars.matcher(grammar.of_choices(["to be", "日本.*"])))
    constraints.add(8, grammars.matcher(grammar.of_schema({"type": "boolean"})))
    masks = np.full((2, 10), -1, np.int32)
    assert constraints.fill([7, 8], [[], []], masks) == ["", ""]

    def allowed(row: int) -> set[int]:
        bits = (masks[row][:, None].astype(np.int64) >> np.arange(32)) & 1
        return set(np.flatnonzero(bits.reshape(-1)).tolist())

    pieces = tokenizer.core.token_bytes()
    for i in allowed(0):
        assert b"to be".startswith(pieces[i]) or "日本.*".encode().startswith(pieces[i])
    assert {pieces[i] for i in allowed(1)} >= {b"t", b"f"}
    assert constraints.fill([7], [tokenizer.encode("to be")], masks) == [""]
    assert allowed(0) == {2}
    [said] = constraints.fill([8], [tokenizer.encode("x")], masks)
    assert said
    constraints.drop(8)
    [said] = constraints.fill([8], [[]], masks)
    assert "cannot be followed" in said


def test_what_takes_too_much_work_is_refused(
    grammars: Grammars, tokenizer: omnima.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraints, masks = Constraints(), np.zeros((1, 10), np.int32)
    constraints.add(1, grammars.matcher(grammar.of_regex("[a-z]+")))
    monkeypatch.setattr(grammar, "_STEP_SECONDS", -1.0)
    [said] = constraints.fill([1], [[]], masks)
    assert "too much work" in said
    monkeypatch.setattr(grammar, "_FIRST_SECONDS", -1.0)
    with pytest.raises(ConfigError, match="too much work"):
        Grammars(tokenizer, 320, [2]).matcher(grammar.of_regex("[a-z]+"))


def test_so_many_compiled_grammars_are_kept(tokenizer: omnima.Tokenizer) -> None:
    kept = Grammars(tokenizer, 320, [2])
    texts = [grammar.of_choices([str(i)]) for i in range(40)]
    for each in texts:
        kept.matcher(each)
    assert list(kept._compiled) == texts[-32:]
    kept.matcher(texts[8])  # used again: the last to go
    kept.matcher(texts[0])
    assert texts[8] in kept._compiled and texts[9] not in kept._compiled


LONG = [
    "a" + "{9}" * 300_000,
    "a" + "{99}" * 2500,
    "a{" + "9" * 5000 + "}",
    "a{1," + "9" * 5000 + "}",
    "(" * 9 + "a" * 99 + "{99999})" * 9,
]


@pytest.mark.parametrize("pattern", LONG, ids=lambda each: each[:8])
@pytest.mark.parametrize("place", ["pattern", "patternProperties", "alone"])
def test_long_expressions_are_refused_at_no_cost(pattern: str, place: str) -> None:
    """Their size is looked at first, and no number of theirs grows."""
    schemas = {"pattern": {"pattern": pattern}, "patternProperties": {place: {pattern: {}}}}
    began = time.thread_time()
    with pytest.raises(ConfigError, match=r"limit is (65536|20000)") as found:
        if place == "alone":
            grammar.of_regex(pattern)
        else:
            grammar.of_schema(schemas[place])
    assert len(str(found.value)) < 200 and time.thread_time() - began < 1


@pytest.mark.parametrize("pattern", [*LONG, "a{" + "9" * 60_000], ids=lambda each: each[:8])
def test_the_work_of_measuring_an_expression_is_linear(pattern: str) -> None:
    began = time.thread_time()
    written_out(pattern, 20_000)
    assert time.thread_time() - began < 2


def test_large_choices_are_not_gone_through() -> None:
    with pytest.raises(ConfigError, match="the choices have 3000000 characters; the limit"):
        grammar.of_choices(["." * 1_500_000] * 2)


@pytest.mark.parametrize("pattern,size", [(r"\{a{3}", 4), (r"[\]a]{2}b", 3), (r"\(\)", 2)])
def test_escaped_characters_count_as_one(pattern: str, size: int) -> None:
    assert written_out(pattern) == size


def test_a_tokenizer_without_an_end_writes_no_structure(tokenizer: omnima.Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no end token"):
        Grammars(tokenizer, 320, [])
