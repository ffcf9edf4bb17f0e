"""Steps that drop documents by what they look like: length, repetition, symbols.

Repetition and symbols follow the rules of Gopher (Rae et al. 2021, appendix A.1.1).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np

from omnima.data.cleaning.step import Counts, TextStep, check_between
from omnima.data.cleaning.words import Words, runs, split_words

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SYMBOLS = re.compile(r"[^\w\s]+|_+")
_BULLETS = ("•", "‣", "◦", "·", "-", "*", "–")
_ELLIPSES = ("...", "…")


class _Judge(TextStep):
    """A step that drops the documents in which it finds a fault."""

    @abstractmethod
    def _fault(self, text: str) -> str | None:
        """Why the text goes; None: it stays."""

    def apply(self, text: str, counts: Counts) -> str | None:
        reason = self._fault(text)
        if reason is None:
            return text
        counts.dropped[reason] += 1
        return None


@dataclass(frozen=True)
class Length(_Judge):
    """Drop documents that are too short or too long."""

    name = "length"
    meaning = "drop documents that are too short or too long"
    min_characters: int = 50
    max_characters: int | None = None
    min_words: int = 0
    max_words: int | None = None

    def __post_init__(self) -> None:
        check_between("min_characters", self.min_characters, 0)
        check_between("max_characters", self.max_characters, max(1, self.min_characters))
        check_between("min_words", self.min_words, 0)
        check_between("max_words", self.max_words, max(1, self.min_words))

    def _fault(self, text: str) -> str | None:
        if len(text) < self.min_characters:
            return "too few characters"
        if self.max_characters is not None and len(text) > self.max_characters:
            return "too many characters"
        if not self.min_words and self.max_words is None:
            return None
        words = len(split_words([text]).numbers)
        if words < self.min_words:
            return "too few words"
        return "too many words" if self.max_words is not None and words > self.max_words else None


@dataclass(frozen=True)
class Repetition(_Judge):
    """Drop documents that say the same again and again.

    The options are the largest shares: of lines and paragraphs that stood there before, of the
    characters in them, of the characters in the most frequent run of n words, and of those in
    runs of n words that stood there before.
    """

    name = "repetition"
    meaning = "drop documents that repeat lines, paragraphs or runs of words"
    lines: float = 0.3
    line_characters: float = 0.2
    paragraphs: float = 0.3
    paragraph_characters: float = 0.2
    top_ngrams: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    repeated_ngrams: dict[int, float] = field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )

    def __post_init__(self) -> None:
        for name in ("lines", "line_characters", "paragraphs", "paragraph_characters"):
            check_between(name, getattr(self, name), 0, 1)
        for name in ("top_ngrams", "repeated_ngrams"):
            for count, share in getattr(self, name).items():
                check_between(f"{name}: n", count, 1)
                check_between(f"{name}: the share for {count}", share, 0, 1)

    def _fault(self, text: str) -> str | None:
        lines = [line.strip() for line in text.split("\n")]
        share, characters = repeated_share([line for line in lines if line])
        if share > self.lines or characters > self.line_characters:
            return "repeated lines"
        paragraphs = [part.strip() for part in _PARAGRAPHS.split(text)]
        share, characters = repeated_share([part for part in paragraphs if part])
        if share > self.paragraphs or characters > self.paragraph_characters:
            return "repeated paragraphs"
        words = split_words([text])
        for count, limit in self.top_ngrams.items():
            if top_share(words, count) > limit:
                return f"one run of {count} words"
        counts = sorted(self.repeated_ngrams)
        for place, count in enumerate(counts):
            share = again_share(words, count)
            if share > self.repeated_ngrams[count]:
                return f"repeated runs of {count} words"
            # A longer run that stood there before consists of shorter ones: its share is no more.
            if all(share <= self.repeated_ngrams[longer] for longer in counts[place + 1 :]):
                break
        return None


def repeated_share(parts: list[str]) -> tuple[float, float]:
    """The shares of parts, and of their characters, that stood there before.

    >>> repeated_share(["a", "bb", "bb", "a"])
    (0.5, 0.5)
    """
    seen: set[str] = set()
    many = characters = 0
    for part in parts:
        if part in seen:
            many += 1
            characters += len(part)
        seen.add(part)
    return many / max(1, len(parts)), characters / max(1, sum(map(len, parts)))


def top_share(words: Words, count: int) -> float:
    """The share of a text's word bytes in its most frequent run of `count` words.

    A run that comes once is none. Of runs as frequent as each other the longest counts.
    """
    numbers, _ = runs(words, count)
    if len(numbers) < 2:
        return 0.0
    _, first, times = np.unique(numbers, return_index=True, return_counts=True)
    most = int(times.max())
    if most < 2:
        return 0.0
    sums = np.concatenate([[0], np.cumsum(words.lengths)])
    places = first[times == most]
    longest = int((sums[places + count] - sums[places]).max())
    return min(1.0, longest * most / int(sums[-1]))


def again_share(words: Words, count: int) -> float:
    """The share of a text's word bytes in runs of `count` words that stood there before."""
    numbers, _ = runs(words, count)
    if len(numbers) < 2:
        return 0.0
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(numbers)))
    if not len(again):
        return 0.0
    depth = np.zeros(len(words.numbers) + 1, dtype=np.int64)
    np.add.at(depth, again, 1)
    np.add.at(depth, again + count, -1)
    covered = np.cumsum(depth[:-1]) > 0
    return float(words.lengths[covered].sum() / words.lengths.sum())


@dataclass(frozen=True)
class Symbols(_Judge):
    """Drop documents that are more signs than language: tables, menus, markup, dumps of numbers."""

    name = "symbols"
    meaning = "drop documents of signs, bullets, cut-off lines or words without letters"
    max_symbols: float = 0.3  # share of the characters that are not white space
    max_hashes: float = 0.1  # "#" and ellipses a word
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_letter_words: float = 0.6  # words that hold a letter

    def __post_init__(self) -> None:
        for name, value in self.options().items():
            check_between(name, value, 0, 1)

    def _fault(self, text: str) -> str | None:
        words = text.split()
        visible = sum(map(len, words))
        if not visible:
            return "no words"
        if sum(map(len, _SYMBOLS.findall(text))) > self.max_symbols * visible:
            return "too many symbols"
        hashes = text.count("#") + sum(text.count(each) for each in _ELLIPSES)
        if hashes > self.max_hashes * len(words):
            return "too many hashes or ellipses"
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if sum(line.startswith(_BULLETS) for line in lines) > self.max_bullet_lines * len(lines):
            return "too many bullets"
        if sum(line.endswith(_ELLIPSES) for line in lines) > self.max_ellipsis_lines * len(lines):
            return "too many cut-off lines"
        plain = sum(map(str.isalpha, words))  # most words: no need to look at their characters
        if plain < self.min_letter_words * len(words):
            lettered = sum(any(map(str.isalpha, word)) for word in words)
            if lettered < self.min_letter_words * len(words):
                return "too few words with letters"
        return None
