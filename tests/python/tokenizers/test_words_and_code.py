"""Word-level tokenizers, layout of code as pieces, and merges left out by chance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima.errors import ConfigError, DataError

CODE = 'class A:\n    def f(self, x):\n        if x:\n\t\treturn "a  b"\n\n\n    y = 1  # ␊ ␠\r\n'


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer.train(
        ["the fox  saw the hen\n", "the hen's 12 foxes"], "word", None, ["<|u|>"]
    )


@pytest.fixture(scope="module")
def code() -> Tokenizer:
    return Tokenizer.train([CODE * 5, CODE.upper()], "bpe", 360, ["<|u|>"], code=True)


def test_words_keep_the_space_before_them(words: Tokenizer) -> None:
    text = "the hen saw  the fox's 12 foxes\n"
    assert words.decode(words.encode(text)) == text
    assert words.pieces(words.encode("the hen"))[:2] == ["the", " hen"]
    assert words.kind == "word" and words.encode(" zebra") == [words.unknown_id]
    assert words.decode(words.encode("the zebra")) == "the\ufffd"
    assert words.vocab_size == 5 + len(set(words.pieces(range(words.vocab_size))[4:-1]))


def test_the_most_frequent_words_are_taken() -> None:
    made = Tokenizer.train(["b a a c", " a"], "word", 6)
    assert made.pieces([3, 4, 5]) == ["<unk>", " a", " c"]
    for size in (4, 8):
        with pytest.raises(ConfigError, match=r"the 3 words of this corpus, expected 5 to 7"):
            Tokenizer.train(["b a a c"], "word", size)
    with pytest.raises(DataError, match="the corpus is empty"):
        Tokenizer.train([], "word")
    assert "fox" not in Tokenizer.train(["fox hen"], "word", None, ["fox"]).pieces([5])


@settings(max_examples=60, deadline=None)
@given(text=st.text() | st.text(alphabet="the foxsaw12'\n "))
def test_words_are_those_of_the_tokenizers_library(words: Tokenizer, text: str) -> None:
    library = pytest.importorskip("tokenizers")
    from omnima.tokenizers import files

    content = files.serialize(words.description)["tokenizer.json"].decode()
    theirs = library.Tokenizer.from_str(content)
    assert words.encode(text, parse_special=True) == theirs.encode(text).ids


def test_words_are_saved_for_transformers(
    words: Tokenizer, in_transformers: Callable[[Tokenizer], Any], tmp_path: Path
) -> None:
    theirs = in_transformers(words)
    for text in ("the fox\n saw zebras", "", "<|u|>the hen's"):
        assert words.encode(text, parse_special=True) == list(theirs(text)["input_ids"])
    theirs.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == words.fingerprint
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the pre_tokenizer 'Whitespace'"):
        Tokenizer.from_pretrained(tmp_path)
    content["pre_tokenizer"] = None
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a model of type 'WordLevel'"):
        Tokenizer.from_pretrained(tmp_path)


def test_layout_of_code_becomes_pieces(
    code: Tokenizer, in_transformers: Callable[[Tokenizer], Any]
) -> None:
    assert code.vocab_size == 360
    pieces = code.pieces(code.encode("x:\n        if y:\n\t\treturn\n\n\nz"))
    assert any("\n" in piece and piece.endswith("    ") for piece in pieces)
    assert not any(piece.startswith("<0x0") for piece in pieces)
    for text in (CODE, CODE * 3, "␊␠␉ \n\n\n\n    \t\t x", "é\n  我"):
        assert code.decode(code.encode(text)) == text
        ids = code.encode(text, parse_special=True)
        assert ids == list(in_transformers(code)(text)["input_ids"])


def test_code_takes_fewer_tokens_with_its_layout(read_text: Callable[[str, int], str]) -> None:
    from omnima.data import open_source

    documents = []
    for document in open_source("pystdlib").documents():
        documents.append(document[:20_000])
        if sum(map(len, documents)) > 900_000:
            break
    train, held_out = documents[::2], documents[1::2]
    counts = {}
    for layout in (False, True):
        made = Tokenizer.train(train, "bpe", 2048, code=layout)
        assert made.vocab_size == 2048
        counts[layout] = sum(map(len, made.encode_batch(held_out)))
    assert counts[True] < 0.92 * counts[False]


def test_a_size_of_code_that_cannot_be_filled_names_the_largest() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size=9000 .* largest size is (\d+)") as high:
        Tokenizer.train([CODE], "bpe", 9000, code=True)
    largest = int(str(high.value).split("largest size is ")[1].split(";")[0])
    assert Tokenizer.train([CODE], "bpe", largest, code=True).vocab_size == largest
    with pytest.raises(ConfigError, match="smallest size is"):
        Tokenizer.train([CODE], "bpe", 262, code=True)
    assert Tokenizer.train([CODE], "bpe", code=True).vocab_size <= largest


def test_code_goes_with_bpe_alone() -> None:
    with pytest.raises(ConfigError, match="code goes with kind 'bpe', not 'unigram'"):
        Tokenizer.train(["x"], "unigram", code=True)


@settings(max_examples=60, deadline=None)
@given(text=st.text() | st.text(alphabet="the foxsaw12'\n "), key=st.integers(0, 2**63))
def test_merges_left_out_keep_the_text(trained: dict[str, Tokenizer], text: str, key: int) -> None:
    made = trained["bpe"]
    ids = made.encode_dropped(text, 0.4, key)
    assert made.decode(ids) == text and ids == made.encode_dropped(text, 0.4, key)
    assert made.encode_dropped(text, 0.0, key) == made.encode(text)
    again = made.core.recut(made.encode(text), 0.4, key)
    assert made.decode(again) == text
    single = made.encode_dropped(text, 1.0, key)
    assert len(single) >= len(text)


def test_merges_are_left_out_as_often_as_in_the_tokenizers_library(
    trained: dict[str, Tokenizer],
) -> None:
    library = pytest.importorskip("tokenizers")
    from omnima.tokenizers import files

    made = trained["bpe"]
    text, dropout, draws = " garden", 0.3, 6000
    assert len(made.encode(text)) == 1  # nothing divides it: the library takes a text as a word
    content = json.loads(files.serialize(made.description)["tokenizer.json"])
    content["model"]["dropout"] = dropout
    theirs = library.Tokenizer.from_str(json.dumps(content))
    expected = Counter(tuple(theirs.encode(text).ids) for _ in range(draws))
    found = Counter(tuple(made.encode_dropped(text, dropout, key)) for key in range(draws))
    assert len(found) > 5
    for ids in expected.keys() | found.keys():
        share = (expected[ids] + found[ids]) / 2 / draws
        error = math.sqrt(2 * share * (1 - share) / draws)
        assert abs(expected[ids] - found[ids]) / draws < 5 * error + 2 / draws


def test_control_tokens_and_parts_of_characters_stay(trained: dict[str, Tokenizer]) -> None:
    made = trained["bpe"]
    whole = [1, *made.encode("the 🦊 fox 我"), 2, *made.encode("old tree"), 0]
    for first in range(len(whole)):
        ids = whole[first:]
        again = made.core.recut(ids, 0.5, 3)
        assert made.decode(again, skip_special=False) == made.decode(ids, skip_special=False)
    broken = made.encode("🦊")[:2] + made.encode("🦊")[:1] + made.encode("the")
    assert made.decode(made.core.recut(broken, 1.0, 0)) == made.decode(broken)
    assert made.core.recut([], 0.5, 0) == []


def test_what_has_no_merges_is_refused(trained: dict[str, Tokenizer]) -> None:
    for kind in ("unigram", "byte", "char"):
        with pytest.raises(ConfigError, match="only a tokenizer of kind 'bpe' has merges"):
            trained[kind].encode_dropped("the", 0.1)
    with pytest.raises(ConfigError, match="dropout is 1.5; expected a probability"):
        trained["bpe"].encode_dropped("the", 1.5)
    with pytest.raises(DataError, match="invalid Unicode at position 0"):
        trained["bpe"].encode_dropped("\ud800", 0.1)


def batches(loader: Any, count: int) -> list[Any]:
    return [tuple(part.numpy() for part in loader.next() if part is not None) for _ in range(count)]


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_rows_are_cut_anew_in_every_epoch(
    packing: Any, trained: dict[str, Tokenizer], documents: list[str], tmp_path: Path
) -> None:
    from omnima.data import open_source, prepare

    made = trained["bpe"]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    data = prepare(open_source(path), made, tmp_path / "cache", 0.2)
    options = {"seed": 5, "packing": packing}
    plain = data.loader("train", 4, 32, **options)
    cut = data.loader("train", 4, 32, tokenizer=made, dropout=0.3, **options)
    epoch = plain.batches_per_epoch
    usual, anew = batches(plain, 2 * epoch), batches(cut, 2 * epoch)
    assert sum((a[1] != b[1]).any() for a, b in zip(usual, anew)) > epoch
    for before, after in zip(usual, anew):
        for row in range(4):
            text = made.decode(before[1][row][before[1][row] >= 0])
            labels = after[1][row][after[1][row] >= 0]
            assert packing == "documents" or text.startswith(made.decode(labels).rstrip("\ufffd"))
            inputs = after[0][row][1 : len(labels)]
            begins = inputs == data.start_id
            if packing == "documents":  # the rest of a long document follows another's end
                begins |= np.diff(after[2][row][: len(labels)]) > 0
            assert (begins | (inputs == labels[:-1])).all()
            if packing == "documents":
                starts = np.flatnonzero(np.diff(after[2][row][: len(labels)])) + 1
                assert (after[1][row][starts - 1] == data.end_id).all() or len(starts)
    again = data.loader("train", 4, 32, tokenizer=made, dropout=0.3, prefetch=False, **options)
    again.seek(epoch + 1)
    for mine, other in zip(batches(again, 3), anew[epoch + 1 :]):
        assert all((a == b).all() for a, b in zip(mine, other))
    zero = data.loader("train", 4, 32, tokenizer=made, dropout=0.0, **options)
    assert all((a[1] == b[1]).all() for a, b in zip(batches(zero, 3), usual))
    with pytest.raises(ConfigError, match="only a tokenizer of kind 'bpe'"):
        data.loader("train", 4, 32, tokenizer=trained["char"], dropout=0.1, **options)


@pytest.mark.parametrize("objective", ["masked", "span"])
def test_other_objectives_do_not_go_with_dropped_merges(objective: str) -> None:
    from omnima.training import TrainConfig

    with pytest.raises(ConfigError, match=f"objective next_token only, not {objective}"):
        TrainConfig(steps=1, objective=objective, bpe_dropout=0.1)


def test_a_run_with_dropped_merges_resumes_bit_for_bit(tmp_path: Path) -> None:
    from omnima.training.recipe import Recipe
    from omnima.training.verify import verify_resume

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    flags = {"data": ["tinyworld:20KB"], "vocab_size": 400, "steps": 6, "batch_size": 2}
    recipe = Recipe.from_layers(
        {**flags, "model": size, "bpe_dropout": 0.2, "tokenizer_code": True, "out": str(tmp_path)}
    )
    assert recipe.identity()["bpe_dropout"] == 0.2
    assert verify_resume(recipe)["identical"]
