"""Learning a tokenizer: sizes, sampling, special text, and errors that name what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from omnima.errors import ConfigError, DataError
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.corpus import read_lines
from omnima.tokenizers.training import choose_vocab_size


def test_size_follows_the_corpus() -> None:
    assert [choose_vocab_size(size) for size in (0, 10_000, 10**6, 10**7, 10**9, 10**12)] == [
        512,
        512,
        1024,
        4096,
        32768,
        65536,
    ]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_tiny_corpus_gets_what_it_can_fill(kind: str) -> None:
    tokenizer = Tokenizer.train(["abc abc abd"], kind)
    assert 259 < tokenizer.vocab_size < 512
    assert tokenizer.decode(tokenizer.encode("abc xyz é")) == "abc xyz é"


def test_a_corpus_of_many_characters_gets_room_for_them() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(600))
    tokenizer = Tokenizer.train([text * 2], "bpe")
    assert tokenizer.vocab_size > 600


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_error_names_a_size_that_works(kind: str, documents: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size=60000 .* largest size is (\d+)") as high:
        Tokenizer.train(documents, kind, 60000)
    largest = int(str(high.value).split("largest size is ")[1].split(";")[0])
    assert Tokenizer.train(documents, kind, largest).vocab_size == largest
    with pytest.raises(ConfigError, match="smallest size is") as low:
        Tokenizer.train(documents, kind, 270)
    smallest = int(str(low.value).split("smallest size is ")[1].split(";")[0])
    assert Tokenizer.train(documents, kind, smallest + 10).vocab_size == smallest + 10


@pytest.mark.parametrize("size", [0, 256, 70_000])
def test_a_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=r"out of bounds.*expected 260 to 65536"):
        Tokenizer.train(["some text"], "bpe", size)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_a_size_for_characters_or_bytes_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="leave vocab_size out"):
        Tokenizer.train(["some text"], kind, 300)


def test_an_unknown_kind_names_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="'syllable' is unknown; expected one of bpe, unigram"):
        Tokenizer.train(["text"], "syllable")


@pytest.mark.parametrize(
    ("special", "message"),
    [
        ("x", "too short"),
        ("<s>", "built in"),
        ("<unk>", "built in"),
        ("<0x41>", "byte token"),
        (3, "too short"),
    ],
)
def test_bad_special_tokens_are_refused(special: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tokenizer.train(["text"], "byte", special_tokens=[special])


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_a_corpus_without_text_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match="corpus is empty"):
        Tokenizer.train(["", ""], kind)


def test_a_corpus_that_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(DataError, match="control characters"):
        Tokenizer.train(["\n\t\n"], "bpe")
    with pytest.raises(DataError, match="document 1 of the corpus: invalid Unicode at position 2"):
        Tokenizer.train(["fine", "ab\ud83d"], "bpe")
    with pytest.raises(DataError, match="document 0 of the corpus is bytes"):
        Tokenizer.train([b"raw"], "bpe")  # type: ignore[list-item]


def test_a_single_text_is_one_document() -> None:
    assert Tokenizer.train("abcab", "char").vocab_size == 4 + 3


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_no_piece_holds_control_text_or_crosses_a_word(kind: str, story: str) -> None:
    tokenizer = Tokenizer.train(
        ["a ▁ b\tb <s> <0x41> <|me|> x▅" * 50, story], kind, None, ["<|me|>"]
    )
    pieces = tokenizer.pieces(range(4 + 256, tokenizer.vocab_size))
    assert not any(set(piece) & set("▁▅\n\t") for piece in pieces)
    assert not {"<s>", "</s>", "<0x41>", "<|me|>"} & set(pieces)
    assert not any(" " in piece.lstrip(" ") for piece in pieces)


def test_the_same_corpus_gives_the_same_tokenizer(documents: list[str]) -> None:
    first, second = (Tokenizer.train(documents, "unigram", 390) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != Tokenizer.train(documents, "unigram", 391).fingerprint


def test_digits_stand_alone_unless_asked() -> None:
    text = ["in 1984 and 1985 and 1984 and 1985 "] * 50
    assert len(Tokenizer.train(text, "bpe", 276).encode("1984")) == 4
    assert len(Tokenizer.train(text, "bpe", 276, split_digits=False).encode("1984")) < 4


def test_memory_is_bounded_by_keeping_lines_evenly() -> None:
    documents = [
        "\n".join(f"line {i:05d}" for i in range(start, start + 100))
        for start in range(0, 10_000, 100)
    ]
    sample = read_lines(documents, ["<s>"], max_bytes=5_000)
    assert sample.documents == 100 and sample.bytes == sum(map(len, documents))
    assert sum(map(len, sample.lines)) <= 5_000
    kept = [int(line.split()[1]) for line in sample.lines]
    steps = {after - before for before, after in zip(kept, kept[1:], strict=False)}
    assert len(steps) == 1 and len(kept) > 200


def test_long_lines_are_cut_and_learnt_from() -> None:
    assert max(map(len, read_lines(["ab" * 10_000], ["<s>"], 1 << 20).lines)) == 4000
    tokenizer = Tokenizer.train(["abcd" * 10_000], "bpe", 270)
    assert len(tokenizer.encode("abcd" * 100)) < 100


def test_tiny_shakespeare_has_65_characters(read_text: Callable[[str, int], str]) -> None:
    text = read_text("shakespeare/input.txt", 10**7)
    assert Tokenizer.train([text], "char").vocab_size == 65 + 4
