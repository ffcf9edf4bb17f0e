"""Models in and out: Hugging Face directories that every other tool can load."""

from __future__ import annotations

from omnima.hub.pretrained import load_pretrained, save_pretrained

__all__ = ["load_pretrained", "save_pretrained"]
