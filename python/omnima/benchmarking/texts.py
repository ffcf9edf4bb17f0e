"""The text of the tokenization benchmark, and the models that each system reads it with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, DataError

KINDS = ("bpe", "unigram")
_VOCABULARY = 8192
_MEASURED = 8_000_000  # bytes that are encoded
_TRAINED = 2_000_000  # bytes that the models are made from


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents on disk and the directory of the tokenizers."""

    directory: Path
    path: Path
    data: str
    kind: str
    vocab_size: int
    documents: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return what a report says about it."""
        values = dataclasses.asdict(self)
        return {name: each for name, each in values.items() if name not in ("directory", "path")}


@contextlib.contextmanager
def corpus_of(data: str, kind: str, vocab_size: int | None, systems: list[str]) -> Iterator[Corpus]:
    """Write up to 8 MB of a source's documents and train the systems' models on 2 MB of them.

    Raises
    ------
    ConfigError
        For an unknown kind or a vocabulary that is too small.
    DataError
        When the source holds no text.
    """
    from omnima.data import open_source
    from omnima.tokenizers import Tokenizer

    if kind not in KINDS:
        raise ConfigError(f'Unknown kind "{kind}"; expected {" or ".join(KINDS)}.')
    texts = list(_up_to(open_source(data).documents(), _MEASURED))
    if not texts:
        raise DataError(f"There is no text in {data}.")
    sample = list(_up_to(iter(texts), _TRAINED))
    size = _VOCABULARY if vocab_size is None else vocab_size
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        tokenizer = Tokenizer.train(sample, kind, size)
        tokenizer.save_pretrained(directory)
        if "sentencepiece" in systems:
            from omnima.benchmarking.systems import sentencepiece_model

            sentencepiece_model.train(sample, kind, size, directory)
        path = directory / "documents.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts)
        count = sum(len(text.encode()) for text in texts)
        yield Corpus(directory, path, data, kind, size, len(texts), count)


def _up_to(texts: Iterator[str], limit: int) -> Iterator[str]:
    held = 0
    for text in texts:
        if held >= limit:
            return
        held += len(text.encode())
        yield text
