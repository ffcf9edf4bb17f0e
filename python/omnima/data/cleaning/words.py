"""Words of many texts at once as 64-bit numbers, and runs of words (n-grams) as numbers too.

A word is a run of letters, digits and ``_`` in lower case; a Chinese or Japanese character is a
word by itself. All is done on UTF-8 bytes with whole-array operations, tens of megabytes a second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_BLOCK = 1 << 20  # bytes whose powers are kept


class Words(NamedTuple):
    """Words of several texts in order."""

    numbers: Numbers  # one a word
    lengths: Places  # bytes of each word
    offsets: Places  # where each text's words begin; one more than there are texts


def _powers(base: int, count: int) -> Numbers:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_POWERS: list[Numbers] = []


def _tables(count: int) -> list[Numbers]:
    """Powers of the base and of its inverse, at least so many; grown when a longer text comes."""
    if not _POWERS or len(_POWERS[0]) < count:
        size = max(count, _BLOCK)
        _POWERS[:] = [_powers(_BASE, size), _powers(_INVERSE, size)]
    return _POWERS


def mix(numbers: Numbers) -> Numbers:
    """Spread every bit of each number over all bits (the finalizer of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _classes() -> npt.NDArray[np.bool_]:
    """Whether a byte belongs to a word, characters of several bytes aside."""
    table = np.zeros(256, dtype=np.bool_)
    for byte in range(128):
        table[byte] = chr(byte).isalnum() or byte == ord("_")
    table[128:] = True
    return table


_IN_WORD = _classes()


def _marks(content: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each byte: whether it is in a word, and whether it begins a character that is a word."""
    inside = _IN_WORD[content]
    single = np.zeros(len(content), dtype=np.bool_)
    if not (content >= 0x80).any():
        return inside, single
    after = np.append(content[1:], np.uint8(0))
    # U+0080-00BF, U+2000-2FFF, U+3000-303F and U+FF00-FF7F are signs and punctuation.
    wide = (content == 0xE2) | ((content == 0xE3) & (after == 0x80))
    wide |= (content == 0xEF) & ((after == 0xBC) | (after == 0xBD))
    signs = wide | (content == 0xC2)
    inside &= ~signs
    inside[1:] &= ~signs[:-1]
    inside[2:] &= ~wide[:-2]
    return inside, inside & (content >= 0xE3) & (content <= 0xE9)


def split_words(texts: list[str]) -> Words:
    """Number the words of texts.

    >>> split_words(["One, two: one!"]).lengths.tolist()
    [3, 3, 3]
    """
    encoded = [text.lower().encode() for text in texts]
    content = np.frombuffer(b" ".join([*encoded, b""]), dtype=np.uint8)
    if not len(content):
        empty = np.zeros(0, dtype=np.int64)
        return Words(empty.astype(np.uint64), empty, np.zeros(len(texts) + 1, dtype=np.int64))
    inside, single = _marks(content)
    before = np.concatenate([[False], inside[:-1]])
    starts_here = inside & ~before
    if single.any():
        # A word also begins at each such character and after it (three bytes on).
        starts_here |= single
        starts_here[3:] |= single[:-3] & inside[3:]
    starts = np.flatnonzero(starts_here)
    stops_here = np.append(inside[:-1] & (~inside[1:] | starts_here[1:]), inside[-1])
    stops = np.flatnonzero(stops_here) + 1
    powers, inverses = _tables(len(content))
    sums = np.zeros(len(content) + 1, dtype=np.uint64)
    np.cumsum(content * powers[: len(content)], out=sums[1:])
    numbers = mix((sums[stops] - sums[starts]) * inverses[starts])
    borders = np.cumsum([0, *(len(each) + 1 for each in encoded)])
    return Words(numbers, stops - starts, np.searchsorted(starts, borders))


def runs(words: Words, count: int) -> tuple[Numbers, Places]:
    """Number every run of `count` words that lies in one text.

    Returns the numbers and where each text's runs begin (one more than there are texts). A text of
    fewer words has none.
    """
    many = len(words.numbers) - count + 1
    lengths = np.maximum(np.diff(words.offsets) - count + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if many <= 0:
        return np.zeros(0, dtype=np.uint64), offsets
    combined = np.zeros(many, dtype=np.uint64)
    for place in range(count):
        combined *= np.uint64(_BASE)
        combined += words.numbers[place : place + many]
    # A text's last count - 1 words begin no run.
    whole = np.repeat(words.offsets[:-1], lengths) + (
        np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    )
    return mix(combined[whole]), offsets
