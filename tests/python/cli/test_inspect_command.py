"""`omnima inspect`: tokens as JSON and as lines, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnima import Tokenizer

from .conftest import Says


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Tokenizer.train(["Hi? Ho."], "byte").save_pretrained(tmp_path / "tokenizer")
    records = [{"prompt": f"{n}?", "completion": f"{n}!"} for n in range(3)]
    text = "".join(json.dumps(each) + "\n" for each in records)
    (tmp_path / "a.jsonl").write_text(text)
    (tmp_path / "b.jsonl").write_text('{"instruction": "Hi?", "output": "Ho."}\n')
    return tmp_path


def test_tokens_as_json(place: Path, shown: Says) -> None:
    both = [place / "a.jsonl", place / "b.jsonl"]
    found = json.loads(
        shown("inspect", place / "tokenizer", "--data", *both, "--index", 1, "--json")
    )
    assert (found["index"], found["of"], found["supervised_tokens"]) == (1, 4, 3)
    assert found["sources"] == [f"{place / 'a.jsonl'}, line 2"]
    assert [set(each) for each in found["tokens"]] == [{"id", "text", "supervised", "segment"}] * 6
    said = [each["text"] for each in found["tokens"] if each["supervised"]]
    assert said == ["1", "!", "</s>"]
    command = ("inspect", place / "tokenizer", "--data", *both, "--row", 0, "--context", 64)
    row = json.loads(shown(*command, "--json"))
    assert len(row["sources"]) > 1 and {each["segment"] for each in row["tokens"]} >= {0, 1}


def test_tokens_as_lines(place: Path, shown: Says) -> None:
    said = shown("inspect", place / "tokenizer", "--data", place / "b.jsonl").splitlines()
    assert said[0].startswith("0 of 1: ") and "4 of them supervised" in said[0]
    assert said[-2].split() == ["2", "0", "yes", "'</s>'"]
    assert said[-1].split()[2:] == ["-", "'\\n'"]


def test_what_is_refused(place: Path, refused: Says) -> None:
    said = refused("inspect", place / "tokenizer", "--data", place / "a.jsonl", "--index", 3)
    assert "sample 3 asked for; there are 3" in said
    (place / "c.jsonl").write_text('{"prompt": "a"}\n')
    said = refused("inspect", place / "tokenizer", "--data", place / "c.jsonl")
    assert "c.jsonl, line 1: no known format" in said
    assert "no file" in refused("inspect", place / "tokenizer", "--data", place / "d.jsonl")
