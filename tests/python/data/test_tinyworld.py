"""TinyWorld: exact probabilities, one derivation a text, stories that keep their facts."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima.data import TinyWorld
from omnima.data.tinyworld_lexicon import TINY
from omnima.errors import ConfigError, DataError


def test_probabilities_of_a_small_world_sum_to_one_and_no_text_comes_twice() -> None:
    world = TinyWorld(lexicon=TINY, questions=1, sums=1)
    seen: set[str] = set()
    total = []
    for text, log_probability in world.derivations():
        assert text not in seen
        seen.add(text)
        total.append(math.exp(log_probability))
    assert len(seen) > 50_000
    assert math.fsum(total) == pytest.approx(1, abs=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_every_document_has_one_derivation_with_the_probability_told(seed: int) -> None:
    world = TinyWorld(seed)
    for text, log_probability in world.documents(count=3):
        ((again, found),) = world.derivations(text)
        assert again == text
        assert found == pytest.approx(log_probability, abs=1e-9)
        assert world.log_probability(text) == pytest.approx(log_probability, abs=1e-9)


def test_a_text_of_another_world_has_probability_zero() -> None:
    with pytest.raises(DataError, match="probability is 0"):
        TinyWorld().log_probability("Once there was a dragon.")
    text = next(text for text, _ in TinyWorld().documents())
    with pytest.raises(DataError):
        TinyWorld().log_probability(text + " ")


def test_seed_decides_everything_and_seeds_differ() -> None:
    first = list(TinyWorld(5).documents(count=50))
    assert first == list(TinyWorld(5).documents(count=50))
    assert first != list(TinyWorld(6).documents(count=50))
    assert TinyWorld(5).fingerprint() != TinyWorld(6).fingerprint()
    with pytest.raises(ConfigError, match="seed"):
        TinyWorld(-1)


def test_sizes_vocabulary_and_speed() -> None:
    started = time.perf_counter()
    texts = [text for text, _ in TinyWorld(1).documents(size=2_000_000)]
    seconds = time.perf_counter() - started
    size = sum(map(len, texts))
    assert 2_000_000 <= size < 2_002_000
    assert "".join(texts).isascii()
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    assert 300 <= len(words) <= 600
    assert size / seconds > 2e6
    stories = [text.split("\nQuestion")[0] for text in texts if "went home" in text]
    lengths = [len(re.findall(r"[.!?]", story)) for story in stories]
    assert 6 <= min(lengths) and sum(lengths) / len(lengths) < 18


def test_sums_are_right_and_answers_follow_from_the_story() -> None:
    lines = answers = 0
    signs = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}
    for text, _ in TinyWorld(2).documents(count=2000):
        sums = re.findall(r"^(\d+) ([-+x]) (\d+) = (\d+)$", text, re.MULTILINE)
        for left, sign, right, result in sums:
            assert signs[sign](int(left), int(right)) == int(result)
            lines += 1
        for found in re.finditer(r"Question: Who has the (.+) now\?\nAnswer: (.+)\.", text):
            thing, who = found.groups()
            if who == "nobody":
                assert f"The {thing} was lost." in text
            else:
                assert f"{who} kept the {thing}." in text or "At last" in text
            answers += 1
    assert lines > 100 and answers > 50
