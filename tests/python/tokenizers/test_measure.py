"""What is measured of a tokenizer on a text."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from omnima import Tokenizer
from omnima.errors import DataError
from omnima.tokenizers import measure as subject


def test_figures_are_those_of_a_count_by_hand(
    trained: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the fox 🦊", "a hen", "12 我 moons"]
    whole = subject.measure(trained["bpe"], texts)
    monkeypatch.setattr(subject, "_BLOCK_CHARACTERS", 10)  # as many blocks as texts
    figures = subject.measure(trained["bpe"], iter([*texts, "x" * 10]))
    ids = [number for text in texts for number in trained["bpe"].encode(text)]
    assert whole["tokens"] == len(ids) and whole["vocab_used"] == len(set(ids)) / 640
    assert whole["bytes_per_token"] == len("".join(texts).encode()) / len(ids)
    assert whole["tokens_per_word"] == len(ids) / 8 and whole["exact"] == 1.0
    assert figures["documents"] == 4 and figures["tokens"] > whole["tokens"]
    assert subject.measure(trained["byte"], [" "])["tokens_per_word"] is None
    with pytest.raises(DataError, match="the text to measure on is empty"):
        subject.measure(trained["bpe"], ["", ""])


def test_parts_of_characters_count_as_bytes(tmp_path: Path) -> None:
    ranks = [bytes([value]) for value in range(256)] + ["é".encode()]
    path = tmp_path / "gpt2.tiktoken"
    path.write_text("".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(ranks)))
    figures = subject.measure(Tokenizer.from_file(path), ["aéü"])
    assert (figures["tokens"], figures["byte_share"]) == (4, 0.5)
