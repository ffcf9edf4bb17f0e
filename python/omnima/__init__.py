"""Omnima: small language models, from raw text to a model that writes."""

from __future__ import annotations

__version__ = "0.1.0"
