"""Versions of data: what is counted, what changed, and the hashes that travel with a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnima import Tokenizer
from omnima.data import open_source, prepare
from omnima.data.cleaning import Cleaning, clean
from omnima.data.compare import compare, describe
from omnima.data.version import version_of
from omnima.errors import DataError


def lines(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_what_data_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The cat sat on the mat.", "Où est le chat noir ?", "The cat sat on the mat."]
    source = open_source(lines(tmp_path / "x.jsonl", texts))
    held = describe(source, Tokenizer.train(["x"], "byte"))
    assert (held["documents"], held["words"], held["exact_duplicates"]) == (3, 17, 1)
    assert (held["characters"], held["bytes"], held["tokens"]) == (67, 68, 68)
    assert held["bytes_a_token"] == 1.0
    assert held["characters_a_document"]["least"] == 21
    assert held["characters_a_document"]["most"] == held["characters_a_document"]["p95"] == 23
    assert sum(held["languages"].values()) == 3
    from omnima.data.cleaning.language import identifier

    identifier.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    assert describe(source)["languages"] is None
    with pytest.raises(DataError, match="no document"):
        empty = tmp_path / "empty.jsonl"
        empty.write_text("nothing\n")
        describe(open_source(empty, on_error="skip"))


def test_what_changed(tmp_path: Path) -> None:
    before = open_source(lines(tmp_path / "a.jsonl", ["one", "two", "two", "gone " * 40]))
    after = open_source(lines(tmp_path / "b.jsonl", ["two", "new", "one", "four"]))
    told = compare(before, after)
    assert not told["same"] and told["kept"] == {"documents": 2, "bytes": 6}
    assert told["added"] == {"documents": 2, "bytes": 7, "examples": ["new", "four"]}
    assert told["removed"]["documents"] == 2 and told["removed"]["bytes"] == 203
    assert told["removed"]["examples"][0] == "two" and told["removed"]["examples"][1][-1] == "…"
    assert told["cleaning"] is None
    moved = open_source(lines(tmp_path / "c.jsonl", ["gone " * 40, "two", "one", "two"]))
    assert compare(before, moved)["same"]


def test_two_cleanings_of_the_same_text_are_told_apart(tmp_path: Path) -> None:
    raw = open_source(lines(tmp_path / "raw.jsonl", ["one", "one", "three three"]))
    clean(raw, Cleaning(["exact"]), tmp_path / "a.jsonl")
    short = {"length": {"min_characters": 5}}
    clean(raw, Cleaning(["exact", short]), tmp_path / "b.jsonl")
    told = compare(open_source(tmp_path / "a.jsonl"), open_source(tmp_path / "b.jsonl"))
    assert told["removed"]["examples"] == ["one"]
    assert list(told["cleaning"]) == ["length"] and told["cleaning"]["length"]["before"] is None
    against_raw = compare(raw, open_source(tmp_path / "a.jsonl"))["cleaning"]
    assert list(against_raw) == ["exact"]
    versions = told["versions"]
    assert versions["before"]["cleaning"] != versions["after"]["cleaning"]


def test_versions_follow_contents_not_places(tmp_path: Path) -> None:
    one = lines(tmp_path / "here" / "x.jsonl", ["one"])
    two = lines(tmp_path / "there" / "x.jsonl", ["one"])
    assert version_of(open_source(one)) == version_of(open_source(two))
    assert version_of(open_source(one))["cleaning"] is None
    lines(two, ["other"])
    assert version_of(open_source(one)) != version_of(open_source(two))
    a = clean(open_source(one), Cleaning(["exact"]), tmp_path / "a.jsonl")
    b = clean(open_source(one), Cleaning(["control"]), tmp_path / "b.jsonl")
    both = version_of(open_source([a.path, b.path]))
    assert both["cleaning"] == [a.record["cleaning"], b.record["cleaning"]]


def test_token_shards_know_their_version(tmp_path: Path) -> None:
    raw = open_source(lines(tmp_path / "raw.jsonl", [f"text {number}" for number in range(40)]))
    cleaned = clean(raw, Cleaning(["exact"]), tmp_path / "clean.jsonl")
    tokenizer = Tokenizer.train(["x"], "byte")
    source = open_source(cleaned.path)
    data = prepare(source, tokenizer, tmp_path / "cache")
    assert data.version == {
        **version_of(source),
        "tokenizer": tokenizer.fingerprint,
        "tokens": data.fingerprint,
    }
    assert data.version["cleaning"] == cleaned.record["cleaning"]
    again = prepare(open_source(cleaned.path), tokenizer, tmp_path / "cache")
    assert again.version == data.version
