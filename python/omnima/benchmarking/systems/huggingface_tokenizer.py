"""Hugging Face tokenizers with the files that our own tokenizer saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def build(job: dict[str, Any], documents: list[str]) -> Callable[[], int]:
    """Return a call that encodes all documents and counts the tokens."""
    # Read by the library when it first starts its threads.
    os.environ["RAYON_NUM_THREADS"] = str(job["threads"])
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(job["directory"], "tokenizer.json"))
    return lambda: sum(len(each.ids) for each in tokenizer.encode_batch_fast(documents))
