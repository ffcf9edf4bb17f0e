"""Our tokenizer's batch call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def build(job: dict[str, Any], documents: list[str]) -> Callable[[], int]:
    """Return a call that encodes all documents and counts the tokens."""
    from omnima.tokenizers import Tokenizer

    tokenizer = Tokenizer.from_pretrained(job["directory"])
    threads = job["threads"]
    return lambda: sum(map(len, tokenizer.encode_batch(documents, threads=threads)))
