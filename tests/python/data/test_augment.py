"""Augmentation: nothing of a document is lost, and what happens to it depends on its text alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from omnima import Tokenizer
from omnima.cli.writing import as_trained, check_way
from omnima.data import open_source, prepare
from omnima.data.augment import (
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    FillInMiddleSource,
    ShuffledSource,
)  # fmt: skip
from omnima.data.base import Piece, Source
from omnima.errors import ConfigError


def texts(count: int) -> list[str]:
    return [
        f"Number {n} begins here. Then it goes on to {n * n}! Is {n} done?" for n in range(count)
    ]


def lines(path: Path, content: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in content))
    return path


def put_back(pieces: list[Piece]) -> str:
    """The text of one document before its middle was put last."""
    marks = [piece.tokens[-1] if piece.tokens else "" for piece in pieces]
    parts = [piece.text for piece in pieces]
    if marks == [FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE]:
        return parts[0] + parts[2] + parts[1]
    if marks == [FIM_SUFFIX, FIM_MIDDLE]:
        assert pieces[0].tokens[-2] == FIM_PREFIX
        return parts[1] + parts[0]
    assert marks == [""]
    return parts[0]


def documents_of(source: Source) -> list[list[Piece]]:
    found: list[list[Piece]] = [[]]
    for piece in source.pieces():
        found[-1].append(piece)
        if piece.last:
            found.append([])
    assert not found.pop()
    return found


def test_the_middle_goes_last_and_nothing_is_lost(tmp_path: Path) -> None:
    source = open_source(lines(tmp_path / "x.jsonl", [*texts(400), "too short"]))
    halves = FillInMiddleSource(source, 0.5)
    documents = documents_of(halves)
    assert [put_back(each) for each in documents] == list(source.documents())
    kinds = Counter(len(each) for each in documents)
    assert 70 < kinds[3] < 130 and 70 < kinds[2] < 130 and 160 < kinds[1] < 240
    assert documents_of(halves) == documents
    assert documents_of(FillInMiddleSource(source, 0.5, seed=1)) != documents
    assert len(documents_of(FillInMiddleSource(source, 0.0))[0]) == 1
    assert halves.special_tokens() == (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)
    assert halves.files() == source.files() and halves.size() == source.size()


def test_sentences_are_shuffled_in_place_of_each_other(tmp_path: Path) -> None:
    content = texts(50) + ["一。二！三？四", "One.\n\nTwo.  Three.\n", "no end"]
    source = open_source(lines(tmp_path / "x.jsonl", content))
    shuffled = list(ShuffledSource(source, 1.0).documents())
    assert shuffled != content and shuffled[-1] == "no end"
    assert all(sorted(a) == sorted(b) for a, b in zip(shuffled, content))
    assert shuffled[51].endswith(".\n") and "\n\n" in shuffled[51]
    assert sorted(shuffled[51].split()) == ["One.", "Three.", "Two."]


def test_marks_and_closing_quotes_stay_with_their_sentence(tmp_path: Path) -> None:
    content = [
        "“你好。”他说。什么？！“走！”啊……",
        'He said "Go." Then he went. (Yes!) It\'s "no".',
    ]
    sentences = [
        ["“你好。”", "他说。", "什么？！", "“走！”", "啊……"],
        ['He said "Go."', "Then he went.", "(Yes!)", 'It\'s "no".'],
    ]
    found: list[set[str]] = [set(), set()]
    for seed in range(12):
        source = open_source(lines(tmp_path / "x.jsonl", content))
        for number, text in enumerate(ShuffledSource(source, 1.0, seed).documents()):
            left = text
            for sentence in sentences[number]:
                assert left.count(sentence) == 1
                left = left.replace(sentence, "")
            assert left.strip() == ""
            found[number].add(text)
    assert all(len(each) > 5 for each in found)


def test_tokens_of_a_filled_middle_with_a_language(tmp_path: Path) -> None:
    lines(tmp_path / "x.jsonl", texts(60))
    (tmp_path / "mix.yaml").write_text(
        "sources: [{data: x.jsonl, language: en, fill_in_middle: 1, shuffle_sentences: 0.5}]"
    )
    source = open_source(tmp_path / "mix.yaml")
    tokenizer = Tokenizer.train(["x"], "byte", special_tokens=source.special_tokens())
    data = prepare(source, tokenizer, tmp_path / "cache", val_fraction=0.2)
    ids = [*data.tokens("train").tolist(), *data.tokens("val").tolist()]
    special = tokenizer.special_tokens
    for token in ("<|en|>", FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, "</s>"):
        assert ids.count(special[token]) == 60
    [asked] = as_trained(tokenizer, ["a"], "en", "b")
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    order = ("<|en|>", FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)
    en, prefix, suffix, middle = (special[token] for token in order)
    assert asked == [tokenizer.bos_id, en, prefix, *a, suffix, *b, middle]
    with pytest.raises(ConfigError, match="not trained to fill gaps"):
        as_trained(Tokenizer.train(["x"], "byte"), ["a"], None, "b")


def test_wrong_shares_and_flags_are_named(tmp_path: Path) -> None:
    lines(tmp_path / "x.jsonl", texts(2))
    for share in ("1.5", "much", "true"):
        (tmp_path / "mix.yaml").write_text(f"sources: [{{data: x.jsonl, fill_in_middle: {share}}}]")
        with pytest.raises(ConfigError, match="source 1: fill_in_middle is .* from 0 to 1"):
            open_source(tmp_path / "mix.yaml")
    with pytest.raises(ConfigError, match="--suffix goes with --prompt"):
        check_way(None, "prompts.txt", False, False, None, "x")
    with pytest.raises(ConfigError, match="--language goes with"):
        check_way(None, None, True, False, "en")
