"""Documents told in another order: the middle last (to learn to fill gaps), sentences shuffled.

What happens to a document is a function of its text and of the seed alone: it is the same in every
reading, and a document that comes twice is changed alike, so both copies stay on one side of the
split. Documents longer than one piece of the stream (4 MB) stay as they are.
"""

from __future__ import annotations

import hashlib
import random
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

from omnima.data.base import Piece, Source
from omnima.errors import ConfigError

FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
_SHORTEST = 16  # characters of a document that is cut in three
# A mark and the quotes or brackets that close behind it; Chinese needs no space after them.
_CLOSING = "\"'”’»)\\]」』）】》"
_SENTENCE_END = re.compile(
    rf"(?:(?<=[.!?…])|(?<=[.!?…][{_CLOSING}]))(\s+)"
    rf"|(?:(?<=[。！？])|(?<=[。！？][{_CLOSING}]))(?![。！？…{_CLOSING}])(\s*)"
)


class AugmentedSource(Source):
    """Changes a share of the documents of a source."""

    name: str

    def __init__(self, source: Source, rate: float, seed: int = 0) -> None:
        super().__init__()
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ConfigError(f"{self.name} is {rate!r}; expected a share from 0 to 1")
        self.source, self.rate, self.seed = source, float(rate), seed
        self.repeats = source.repeats

    @abstractmethod
    def change(self, piece: Piece, chance: random.Random) -> list[Piece]:
        """The pieces that a whole document becomes."""

    def pieces(self) -> Iterator[Piece]:
        begins = True
        for piece in self.source.pieces():
            self.skipped = self.source.skipped
            # A document's probability is that of its text as it was.
            changed = [piece._replace(log_probability=None)]
            if begins and piece.last:
                chance = self._chance(piece.text)
                if chance.random() < self.rate:
                    changed = self.change(changed[0], chance)
            yield from changed
            begins = piece.last
        self.skipped = self.source.skipped

    def _chance(self, text: str) -> random.Random:
        key = f"{self.name} {self.seed}".encode()
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
        return random.Random(int.from_bytes(digest, "little"))

    def identity(self) -> str:
        return f"{self.name} {self.rate} {self.seed}\n{self.source.identity()}"

    def files(self) -> list[Path]:
        return self.source.files()

    def size(self) -> int | None:
        return self.source.size()

    def special_tokens(self) -> tuple[str, ...]:
        return self.source.special_tokens()


class FillInMiddleSource(AugmentedSource):
    """Puts the middle of a document last, so that a model learns to fill a gap.

    Bavarian et al. 2022, "Efficient training of language models to fill in the middle": two cuts at
    characters chosen evenly; half of the documents as prefix, suffix, middle, half as suffix,
    prefix, middle (their "SPM", variant 2).

    >>> from omnima.data import open_source
    >>> source = FillInMiddleSource(open_source("tinyworld:1KB"), 1.0)
    >>> {piece.tokens for piece in source.pieces() if piece.last}
    {('<|fim_middle|>',)}
    """

    name = "fill_in_middle"

    def change(self, piece: Piece, chance: random.Random) -> list[Piece]:
        text = piece.text
        if len(text) < _SHORTEST:
            return [piece]
        low, high = sorted(chance.sample(range(1, len(text)), 2))
        prefix, middle, suffix = text[:low], text[low:high], text[high:]
        if chance.random() < 0.5:
            return [
                Piece(prefix, False, None, (*piece.tokens, FIM_PREFIX)),
                Piece(suffix, False, None, (FIM_SUFFIX,)),
                Piece(middle, True, None, (FIM_MIDDLE,)),
            ]
        return [
            Piece(suffix, False, None, (*piece.tokens, FIM_PREFIX, FIM_SUFFIX)),
            Piece(prefix + middle, True, None, (FIM_MIDDLE,)),
        ]

    def special_tokens(self) -> tuple[str, ...]:
        inner = self.source.special_tokens()
        return tuple(dict.fromkeys((*inner, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)))


class ShuffledSource(AugmentedSource):
    """Puts the sentences of a document in another order; white space keeps its places."""

    name = "shuffle_sentences"

    def identity(self) -> str:
        # A number for the way that sentences are told apart: another way is another text.
        return f"{super().identity()}\nsentences 2"

    def change(self, piece: Piece, chance: random.Random) -> list[Piece]:
        parts = [part or "" for part in _SENTENCE_END.split(piece.text)]
        sentences = parts[0::3]
        gaps = [one or other for one, other in zip(parts[1::3], parts[2::3])]
        closing = [] if sentences[-1] else [sentences.pop()]  # white space at the end
        chance.shuffle(sentences)
        ordered = [*sentences, *closing]
        text = "".join(sentence + gap for sentence, gap in zip(ordered, [*gaps, ""]))
        return [piece._replace(text=text)]
