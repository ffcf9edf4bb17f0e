"""Mixtures: exact shares in every stretch, nothing left to chance, languages before documents."""

from __future__ import annotations

import json
import textwrap
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima.data import open_source, prepare
from omnima.data.base import Piece, Source
from omnima.data.mixture import WeightedSource
from omnima.errors import ConfigError, DataError


class Made(Source):
    """Documents of given sizes, each in pieces of ten characters."""

    def __init__(self, letter: str, sizes: list[int]) -> None:
        super().__init__()
        self.letter, self.sizes = letter, sizes

    def pieces(self):
        for size in self.sizes:
            for start in range(0, size, 10):
                yield Piece(self.letter * min(10, size - start), start + 10 >= size)

    def identity(self) -> str:
        return f"{self.letter} {self.sizes}"

    def size(self) -> int:
        return sum(self.sizes)


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@given(
    st.lists(st.integers(1, 60), min_size=20, max_size=80),
    st.lists(st.integers(1, 60), min_size=20, max_size=80),
    st.floats(0.1, 10),
)
def test_shares_hold_in_every_stretch(first: list[int], second: list[int], weight: float) -> None:
    source = WeightedSource([Made("a", first), Made("b", second)], [weight, 1.0])
    given_bytes = {"a": 0, "b": 0}
    texts = list(source.documents())
    assert texts == list(source.documents())
    for text in texts:
        given_bytes[text[0]] += len(text)
        # Never further from its share than the longest document.
        assert abs(given_bytes["a"] / weight - given_bytes["b"]) <= 60 * max(1, 1 / weight)
    counts = [sum(text[0] == letter for text in texts) for letter in "ab"]
    assert counts[0] == len(first) or counts[1] == len(second)  # no document twice, one all read
    whole = WeightedSource([Made("a", first), Made("b", second)], [weight, 1.0], "all_exhausted")
    counts = [sum(text[0] == letter for text in whole.documents()) for letter in "ab"]
    assert counts[0] >= len(first) and counts[1] >= len(second)
    assert whole.repeats and not source.repeats


def test_a_mixture_from_yaml(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [f"a{number:03}" for number in range(90)])
    (tmp_path / "b.csv").write_text("body\n" + "".join(f"b{n:03}\n" for n in range(40)))
    (tmp_path / "mix.yaml").write_text(
        textwrap.dedent(
            """
            sources:
              - data: a.jsonl
                weight: 3
              - {data: [b.csv], field: body, weight: 1}
            """
        )
    )
    source = open_source(tmp_path / "mix.yaml")
    texts = list(source.documents())
    assert [text[0] for text in texts[:8]] == list("abaaabaa")
    assert len(texts) == 120  # a's 90 and a third as many b's
    assert source.size() == pytest.approx(40 * 5 * 4, abs=30) and len(source.files()) == 2
    changed = (tmp_path / "mix.yaml").read_text().replace("weight: 3", "weight: 2")
    (tmp_path / "mix2.yaml").write_text(changed)
    assert open_source(tmp_path / "mix2.yaml").identity() != source.identity()


def test_an_interrupted_preparation_goes_on_in_the_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path / "a.jsonl", [f"aa {number} " * 20 for number in range(200)])
    lines(tmp_path / "b.jsonl", [f"bb {number} " * 5 for number in range(200)])
    (tmp_path / "mix.yaml").write_text(
        "sources: [{data: a.jsonl, weight: 1, language: en}, {data: b.jsonl, weight: 2}]\n"
        "stopping_strategy: all_exhausted\n"
    )
    tokenizer = Tokenizer.train(["text"], "byte", special_tokens=["<|en|>"])
    whole = prepare(open_source(tmp_path / "mix.yaml"), tokenizer, tmp_path / "x", shard_bytes=4096)
    assert len(whole.manifest["shards"]) > 3
    calls = 0

    def interrupt(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    source = open_source(tmp_path / "mix.yaml")
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path / "y", progress=interrupt, shard_bytes=4096)
    again = prepare(source, tokenizer, tmp_path / "y", shard_bytes=4096)
    assert again.fingerprint == whole.fingerprint


def test_language_tokens_go_before_documents(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [f"the cat {number}" for number in range(30)])
    lines(tmp_path / "b.jsonl", [f"le chat {number}" for number in range(30)])
    (tmp_path / "mix.yaml").write_text(
        "sources: [{data: a.jsonl, language: en}, {data: b.jsonl, language: fr}]\n"
    )
    source = open_source(tmp_path / "mix.yaml")
    assert source.special_tokens() == ("<|en|>", "<|fr|>")
    with pytest.raises(ConfigError, match=r"<\|en\|> before text, but the tokenizer has no"):
        prepare(source, Tokenizer.train(["x"], "byte"), tmp_path / "cache")
    tokenizer = Tokenizer.train(["x"], "byte", special_tokens=["<|en|>", "<|fr|>"])
    data = prepare(source, tokenizer, tmp_path / "cache", val_fraction=0.2)
    marks = {tokenizer.special_tokens[token]: token for token in ("<|en|>", "<|fr|>")}
    for side in ("train", "val"):
        ids = data.tokens(side)
        begins = np.concatenate([[0], np.flatnonzero(ids == data.end_id)[:-1] + 1])
        for begin, end in zip(begins, [*begins[1:], len(ids)]):
            text = tokenizer.decode(ids[begin:end])
            assert marks[int(ids[begin])] == ("<|en|>" if text.startswith("the") else "<|fr|>")
    assert data.entropy_floor is None


def test_one_long_text_split_by_position_has_its_language_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * 1000)
    (tmp_path / "mix.yaml").write_text("sources: [{data: long.txt, language: en}]")
    tokenizer = Tokenizer.train(["x"], "byte", special_tokens=["<|en|>"])
    data = prepare(open_source(tmp_path / "mix.yaml"), tokenizer, tmp_path / "c", val_fraction=0.1)
    mark = tokenizer.special_tokens["<|en|>"]
    assert data.split == "position"
    assert data.tokens("train")[0] == data.tokens("val")[0] == mark
    assert (data.train_tokens, data.val_tokens) == (901, 102)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must be a mapping"),
        ("sources: 3", "a list under 'sources' is expected"),
        ("sources: []", "'sources' is empty"),
        ("sources: [a.jsonl]", "source 1: a mapping with 'data' is expected"),
        ("sources: [{data: a.jsonl, wieght: 1}]", 'unknown key "wieght". The nearest is "weight"'),
        ("sources: [{data: a.jsonl, weight: much}]", "weight is 'much'"),
        ("sources: [{data: a.jsonl, weight: 0}]", "a weight is 0.0; expected a number above 0"),
        ("sources: [{data: a.jsonl, weight: 1}, {data: a.jsonl}]", "1 of 2 sources have a weight"),
        ("sources: [{data: a.jsonl, language: french!}]", "source 1: language is 'french!'"),
        ("sources: [{data: a.jsonl, weight: 1}]\nstopping_strategy: never", "first_exhausted or"),
        ("sources: [{data: a.jsonl}]\nstopping_strategy: all_exhausted", "goes with weights"),
        ("source: []", "'sources' is expected"),
        ("sources: [", "not YAML"),
    ],
)
def test_wrong_descriptions_are_named(tmp_path: Path, text: str, message: str) -> None:
    lines(tmp_path / "a.jsonl", ["one"])
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        open_source(tmp_path / "mix.yaml")
    assert "mix.yaml" in str(raised.value)


def test_a_missing_file_of_a_mixture_names_its_entry(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("sources: [{data: none.jsonl}]")
    with pytest.raises(DataError, match=r"source 1: there is no file or directory 'none\.jsonl'"):
        open_source(tmp_path / "mix.yaml")


def test_edges_of_a_weighted_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 sources have 2 weights"):
        WeightedSource([Made("a", [1])], [1, 2])
    with pytest.raises(DataError, match="no document"):
        list(WeightedSource([Made("a", []), Made("b", [3])], [1, 1], "all_exhausted").pieces())
    endless = WeightedSource([Made("a", [10]), Made("b", [10] * 9)], [1, 1], "all_exhausted")
    assert len(list(islice(endless.pieces(), 100))) == 19
    tokenizer = Tokenizer.train(["x"], "byte")
    few = WeightedSource([Made("a", [10]), Made("b", [10] * 3)], [1, 1], "all_exhausted")
    with pytest.raises(ConfigError, match="reads documents more than once"):
        prepare(few, tokenizer, tmp_path, val_fraction=0.2)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x"}\nnot JSON\n')
    skipping = WeightedSource([open_source(bad, on_error="skip"), Made("b", [9])], [1, 1])
    assert len(list(skipping.documents())) == 2 and skipping.skipped == 1
