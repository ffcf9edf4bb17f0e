"""Tokens added to a tokenizer follow the others, in our files and in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnima.errors import ConfigError
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.description import ROLE_TEXT, Description, no_merges


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "byte", "word"])
def test_special_tokens_follow(
    kind: str, documents: list[str], story: str, in_transformers: Any, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.train(documents, kind, 640 if kind == "bpe" else None)
    story = story.replace("<s>", "")
    size, before = tokenizer.vocab_size, tokenizer.encode(story)
    fingerprint = tokenizer.fingerprint
    assert tokenizer.add_tokens(["<|bot|>", "[TOOL]", "<|bot|>"]) == [size, size + 1, size]
    assert tokenizer.add_tokens(["[TOOL]", "</s>"]) == [size + 1, tokenizer.eos_id]
    assert tokenizer.fingerprint != fingerprint
    assert tokenizer.encode(story) == before
    text = f"<|bot|>{story}[TOOL]"
    ids = tokenizer.encode(text, parse_special=True)
    assert ids == [size, *before, size + 1]
    assert tokenizer.decode(ids, skip_special=False) == (f"<|bot|>{tokenizer.decode(before)}[TOOL]")
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(text, parse_special=True) == ids
    theirs = in_transformers(tokenizer)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def byte_level() -> Tokenizer:
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    pieces = [chr(byte if byte in kept else next(spare)) for byte in range(256)]
    return Tokenizer(
        Description(
            kind="bpe", pieces=pieces, roles=[ROLE_TEXT] * 256, merges=no_merges(), scores=(),
            bos=None, eos=None, pad=None, pattern="gpt2",
        )
    )  # fmt: skip


def test_plain_tokens_are_written_out(in_transformers: Any, tmp_path: Path) -> None:
    tokenizer = byte_level()
    assert tokenizer.add_tokens(["<think>", " über"], special=False) == [256, 257]
    text = "a<think>b über"
    ids = tokenizer.encode(text, parse_special=True)
    assert ids == [97, 256, 98, 257] and tokenizer.decode(ids) == text
    tokenizer.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).encode(text, parse_special=True) == ids
    assert in_transformers(tokenizer)(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("a", "too short"),
        (3, "too short"),
        ("<0x41>", "name of a byte token"),
        ("a\ud800", "invalid Unicode: character 1"),
    ],
)
def test_what_cannot_be_a_token_is_refused(token: Any, message: str) -> None:
    tokenizer = byte_level()
    with pytest.raises(ConfigError, match=message):
        tokenizer.add_tokens(["<|fine|>", token])
    assert tokenizer.vocab_size == 256


def test_plain_tokens_are_for_byte_level_bpe(documents: list[str]) -> None:
    tokenizer = Tokenizer.train(documents, "bpe", 640)
    with pytest.raises(ConfigError, match="kind 'bpe' takes special tokens only"):
        tokenizer.add_tokens(["<think>"], special=False)
    piece = next(p for p, role in zip(tokenizer.description.pieces, tokenizer.description.roles)
                 if role == ROLE_TEXT and len(p) > 2)  # fmt: skip
    with pytest.raises(ConfigError, match="ordinary text already"):
        tokenizer.add_tokens([piece])
