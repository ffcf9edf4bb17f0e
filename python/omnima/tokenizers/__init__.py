"""Text to token ids and back, in files that transformers loads as they are."""

from __future__ import annotations

from omnima.tokenizers.chat import EncodedChat
from omnima.tokenizers.tokenizer import StreamDecoder, Tokenizer

__all__ = ["EncodedChat", "StreamDecoder", "Tokenizer"]
