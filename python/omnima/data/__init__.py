"""Text in: sources of documents, TinyWorld, token shards on disk and loaders over them."""

from __future__ import annotations

from omnima.data.base import Piece, Source
from omnima.data.prepare import PrepareProgress, prepare
from omnima.data.sources import open_source
from omnima.data.tinyworld import TinyWorld
from omnima.data.tokens import TokenData

__all__ = [
    "Piece",
    "PrepareProgress",
    "Source",
    "TinyWorld",
    "TokenData",
    "open_source",
    "prepare",
]
