"""Words and runs of words as numbers, against a plain regular expression and plain sets."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omnima.data.cleaning.words import runs, split_words

WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+")
TEXTS = st.lists(
    st.text(st.sampled_from("aAbBéßœжЖ09_ .,!?“”—\n\t你好世かな，。\u00a0…"), max_size=40),
    max_size=6,
)


def plain(text: str) -> list[str]:
    return WORD.findall(text.lower())


@given(TEXTS)
def test_words_are_those_of_a_regular_expression(texts: list[str]) -> None:
    words = split_words(texts)
    assert len(words.offsets) == len(texts) + 1 and words.offsets[-1] == len(words.numbers)
    expected = [word for text in texts for word in plain(text)]
    assert words.lengths.tolist() == [len(word.encode()) for word in expected]
    assert np.diff(words.offsets).tolist() == [len(plain(text)) for text in texts]
    numbers = words.numbers.tolist()
    same = {word: number for word, number in zip(expected, numbers)}
    assert numbers == [same[word] for word in expected]  # equal words, equal numbers
    assert len(set(numbers)) == len(set(expected))  # and different ones, different


@given(TEXTS, st.integers(1, 4))
def test_runs_never_cross_texts_and_keep_their_order(texts: list[str], count: int) -> None:
    numbers, offsets = runs(split_words(texts), count)
    expected = []
    for text in texts:
        words = plain(text)
        expected.append([tuple(words[i : i + count]) for i in range(len(words) - count + 1)])
    assert np.diff(offsets).tolist() == [len(each) for each in expected]
    flat = [run for each in expected for run in each]
    assert len(set(numbers.tolist())) == len(set(flat))
    same = dict(zip(flat, numbers.tolist()))
    assert numbers.tolist() == [same[run] for run in flat]


def test_a_word_has_one_number_wherever_it_stands() -> None:
    long = "x " * 700_000 + "needle"  # beyond the block whose powers are kept
    assert split_words([long]).numbers[-1] == split_words(["a", "Needle"]).numbers[-1]
    assert len(split_words([]).numbers) == 0
