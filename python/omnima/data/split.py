"""Which side of the training / validation split a piece of text falls on.

By hash: a document goes to validation when a keyed hash of its text falls below the fraction, so a
repeated document is never on both sides. By position: the last part of the corpus, counted in
characters, is validation (the usual 90/10 of a single long text).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from omnima.data.base import Piece, Source
from omnima.errors import DataError

Split = Literal["hash", "position"]
SPLITS = ("train", "val")
FEW_DOCUMENTS = 20  # fewer than this are split by position


class Part(NamedTuple):
    """A piece of text on one side of the split."""

    side: int  # index into SPLITS
    text: str
    size: int  # bytes
    last: bool  # the document ends here
    log_probability: float | None
    tokens: tuple[str, ...] = ()  # special tokens that go before the text


class Splitter:
    """Sends pieces to their sides; `characters` and `side` are all of its state."""

    def __init__(self, val_fraction: float, seed: int, cut: int | None) -> None:
        self.cut = cut  # character where validation begins; None: split by hash
        self.characters = 0
        self.side: int | None = None  # of the document that goes on in the next piece
        self._limit = int(val_fraction * 2.0**64)
        self._key = seed.to_bytes(8, "little", signed=True)

    def parts(self, piece: Piece) -> Iterator[Part]:
        if self.cut is None:
            encoded = piece.text.encode()
            side = self.side if self.side is not None else self._hashed(encoded)
            self.side = None if piece.last else side
            known, tokens = piece.log_probability, piece.tokens
            yield Part(side, piece.text, len(encoded), piece.last, known, tokens)
            return
        until = self.cut - self.characters
        self.characters += len(piece.text)
        if until > 0:
            text = piece.text[:until]
            whole = until >= len(piece.text)
            ends = piece.last and whole
            yield Part(0, text, len(text.encode()), ends, None, piece.tokens)
        if until < len(piece.text):
            text = piece.text[max(until, 0) :]
            yield Part(1, text, len(text.encode()), piece.last, None, piece.tokens)

    def _hashed(self, encoded: bytes) -> int:
        digest = hashlib.blake2b(encoded, digest_size=8, key=self._key).digest()
        return int(int.from_bytes(digest, "little") < self._limit)


def sides_of_documents(source: Source, splitter: Splitter) -> Iterator[int]:
    """Yield the side on which each document begins, in order: an index into SPLITS."""
    begins = True
    for piece in source.pieces():
        sides = [part.side for part in splitter.parts(piece)]
        if begins:
            yield from sides[:1]
        begins = piece.last


def choose_split(source: Source, val_fraction: float, seed: int) -> Split:
    """By hash where that fills both sides and documents are many, else by position."""
    splitter = Splitter(val_fraction, seed, None)
    documents = 0
    sides: set[int] = set()
    wanted = 2 if val_fraction > 0 else 1
    for piece in source.pieces():
        for part in splitter.parts(piece):
            documents += part.last
            sides.add(part.side)
        if documents >= FEW_DOCUMENTS and len(sides) >= wanted:
            return "hash"
    if not documents:
        raise DataError("there is no document in the data; give at least one with some text.")
    return "position" if val_fraction > 0 else "hash"


def position_of_cut(source: Source, val_fraction: float) -> int:
    """The character at which the validation part begins."""
    return int(sum(len(piece.text) for piece in source.pieces()) * (1 - val_fraction))
