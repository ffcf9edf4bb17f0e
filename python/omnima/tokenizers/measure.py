"""What a tokenizer is, and how it does on a text."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from omnima._blocks import blocks_of
from omnima.errors import DataError
from omnima.tokenizers.description import ROLE_BYTE, ROLE_TEXT
from omnima.tokenizers.tokenizer import Tokenizer

_BLOCK_CHARACTERS = 4 << 20  # documents that are measured together
_WARM_UP = 32  # documents
_REPLACEMENT = "\ufffd"


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the facts of a tokenizer.

    >>> describe(Tokenizer.train(["to be"], "byte"))["byte_tokens"]
    256
    """
    description = tokenizer.description
    texts = [
        piece for piece, role in zip(description.pieces, description.roles) if role == ROLE_TEXT
    ]
    named = {"begin": tokenizer.bos_id, "end": tokenizer.eos_id, "padding": tokenizer.pad_id}
    return {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "text_pieces": len(texts),
        "byte_tokens": list(description.roles).count(ROLE_BYTE),
        "longest_piece": max(texts, key=len, default=None),
        "merges": len(description.merges),
        "cut_first_by": description.pattern,
        "normalization": "NFC" if description.nfc else None,
        **named,
        "unknown": tokenizer.unknown_id,
        "special_tokens": tokenizer.special_tokens,
        "fingerprint": tokenizer.fingerprint,
    }


def measure(tokenizer: Tokenizer, documents: Iterable[str], threads: int = 1) -> dict[str, Any]:
    """Encode documents and return how well and how fast that went.

    ``tokens_per_word`` (fertility) counts what white space divides as words; ``byte_share`` is the
    share of tokens that are no whole character, ``unknown_share`` that of tokens for what the
    vocabulary lacks, ``vocab_used`` the share of ids that were met, ``exact`` the share of
    documents that come back as they were.

    Raises
    ------
    DataError
        No text.

    Examples
    --------
    >>> figures = measure(Tokenizer.train(["to be"], "byte"), ["to be"])
    >>> figures["tokens"], figures["bytes_per_token"], figures["byte_share"]
    (5, 1.0, 1.0)
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    number = size = characters = words = exact = 0
    seconds = 0.0
    for block in blocks_of(documents, len, _BLOCK_CHARACTERS):
        if not number:
            tokenizer.encode_batch(block[:_WARM_UP], threads=threads)  # its memory is touched first
        started = time.perf_counter()
        encoded = tokenizer.encode_batch(block, threads=threads)
        seconds += time.perf_counter() - started
        for text, ids in zip(block, encoded, strict=True):
            counts += np.bincount(ids, minlength=len(counts))
            exact += tokenizer.decode(ids) == text
            number += 1
            size += len(text.encode("utf-8"))
            characters += len(text)
            words += len(text.split())
    tokens = int(counts.sum())
    if not tokens:
        raise DataError("the text to measure on is empty; give one with some words in it")
    unknown = 0 if tokenizer.unknown_id is None else int(counts[tokenizer.unknown_id])
    return {
        "documents": number,
        "bytes": size,
        "tokens": tokens,
        "bytes_per_token": size / tokens,
        "characters_per_token": characters / tokens,
        "tokens_per_word": tokens / words if words else None,
        "byte_share": int(counts[_parts_of_characters(tokenizer)].sum()) / tokens,
        "unknown_share": unknown / tokens,
        "vocab_used": float((counts > 0).mean()),
        "exact": exact / number,
        "mb_per_s": size / 1e6 / max(seconds, 1e-9),
    }


def _parts_of_characters(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of byte tokens and of byte-level pieces that are no whole characters."""
    description = tokenizer.description
    byte_level = description.pattern is not None and tokenizer.kind != "word"
    return [
        number
        for number, role in enumerate(description.roles)
        if role == ROLE_BYTE or (role == ROLE_TEXT and byte_level and _is_part(tokenizer, number))
    ]


def _is_part(tokenizer: Tokenizer, number: int) -> bool:
    text: str = tokenizer.core.decode([number])
    return _REPLACEMENT in text
