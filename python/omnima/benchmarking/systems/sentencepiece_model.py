"""SentencePiece with a model of the same kind and size, trained on the same text by its own
defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FILE = "sentencepiece.model"


def train(texts: Iterable[str], kind: str, vocab_size: int, directory: Path) -> None:
    """Write a model of that kind into the directory."""
    import sentencepiece

    with (directory / FILE).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.split("\n") if line),
            model_writer=file,
            model_type=kind,
            vocab_size=vocab_size,
            byte_fallback=True,
            hard_vocab_limit=False,
            max_sentence_length=1 << 16,
            minloglevel=2,
        )


def build(job: dict[str, Any], documents: list[str]) -> Callable[[], int]:
    """Return a call that encodes all documents and counts the tokens."""
    import sentencepiece

    model = (Path(job["directory"]) / FILE).read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    threads = job["threads"]
    return lambda: sum(map(len, processor.encode(documents, num_threads=threads)))
