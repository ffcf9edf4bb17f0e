"""Models in and out: Hugging Face directories and GGUF files, which other tools load."""

from __future__ import annotations

from omnima._places import find_model
from omnima.hub.card import Card, Origin, card_of, read_origin, update_certificates, write_card
from omnima.hub.fit import check_tokenizer
from omnima.hub.gguf.model import load_gguf, open_gguf
from omnima.hub.gguf.saving import save_gguf
from omnima.hub.pretrained import load_pretrained, open_pretrained
from omnima.hub.push import Pushed, push
from omnima.hub.saving import MAX_SHARD_SIZE, save_pretrained
from omnima.hub.tokenizer import open_tokenizer, tokenizer_beside

__all__ = [
    "MAX_SHARD_SIZE",
    "Card",
    "Origin",
    "Pushed",
    "card_of",
    "check_tokenizer",
    "find_model",
    "load_gguf",
    "load_pretrained",
    "open_gguf",
    "open_pretrained",
    "open_tokenizer",
    "push",
    "read_origin",
    "save_gguf",
    "save_pretrained",
    "tokenizer_beside",
    "update_certificates",
    "write_card",
]
