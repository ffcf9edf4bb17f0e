"""Text in: sources of documents, TinyWorld, token shards on disk and loaders over them."""

from __future__ import annotations

from omnima.data.base import Piece, Source
from omnima.data.conversations import open_conversations, read_examples
from omnima.data.mixture import language_token, languages_of
from omnima.data.prepare import PrepareProgress, prepare
from omnima.data.sources import open_mixture, open_source
from omnima.data.tinyworld import TinyWorld
from omnima.data.tokens import TokenData

__all__ = [
    "Piece",
    "PrepareProgress",
    "Source",
    "TinyWorld",
    "TokenData",
    "language_token",
    "languages_of",
    "open_conversations",
    "open_mixture",
    "open_source",
    "prepare",
    "read_examples",
]
