"""TinyWorld as a source of documents of a given total size."""

from __future__ import annotations

from collections.abc import Iterator

from omnima.data.base import Piece, Source
from omnima.data.tinyworld import TinyWorld

DEFAULT_SIZE = 8_000_000  # bytes


class TinyWorldSource(Source):
    """The first documents of a TinyWorld, up to a size, with their log-probabilities."""

    def __init__(self, size: int = DEFAULT_SIZE, seed: int = 0) -> None:
        super().__init__()
        self.total = size
        self.world = TinyWorld(seed)

    def identity(self) -> str:
        return f"tinyworld {self.total} {self.world.fingerprint()}"

    def size(self) -> int:
        return self.total

    def pieces(self) -> Iterator[Piece]:
        for text, log_probability in self.world.documents(size=self.total):
            yield Piece(text, True, log_probability)
