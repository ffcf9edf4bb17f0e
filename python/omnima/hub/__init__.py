"""Models in and out: Hugging Face directories and GGUF files, which other tools load."""

from __future__ import annotations

from omnima.hub.gguf.model import load_gguf, save_gguf
from omnima.hub.pretrained import load_pretrained, save_pretrained

__all__ = ["load_gguf", "load_pretrained", "save_gguf", "save_pretrained"]
