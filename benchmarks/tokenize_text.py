"""Tokenization speed beside SentencePiece's own batch call on the same text.

    python benchmarks/tokenize_text.py --data "text/*.txt" --vocab-size 32000 --threads 2

Prints one JSON line a measurement (megabytes of UTF-8 a second, median of the repeats) and one
with the ratio.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnima.data import open_source
from omnima.tokenizers import Tokenizer


def read_documents(patterns: list[str]) -> list[str]:
    """Return the paragraphs of text files and the 'text' fields of JSON lines, gzipped or not."""
    documents: list[str] = []
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        opener: Any = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as file:
            if ".jsonl" in path:
                documents += [json.loads(line)["text"] for line in file]
            else:
                documents += [part for part in file.read().split("\n\n") if part]
    return documents


def train_sentencepiece(documents: list[str], kind: str, vocab_size: int) -> Any:
    """Return a SentencePiece processor with its own default options."""
    import sentencepiece

    model = io.BytesIO()
    lines = [line for document in documents for line in document.split("\n") if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=vocab_size,
        byte_fallback=True,
        max_sentence_length=1 << 16,
        num_threads=os.cpu_count(),
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def seconds_of(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time the calls in turns, so that all meet the same weather; one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(kind: str, documents: list[str], arguments: argparse.Namespace) -> None:
    """Print the rows of one kind."""
    threads = arguments.threads
    start = time.perf_counter()
    ours = Tokenizer.train(documents, kind, arguments.vocab_size)
    training = time.perf_counter() - start
    theirs = train_sentencepiece(documents, kind, arguments.vocab_size)
    size = sum(len(document.encode()) for document in documents)
    seconds = seconds_of(
        {
            "omnima": lambda: ours.encode_batch(documents, threads=threads),
            "sentencepiece": lambda: theirs.encode(documents, num_threads=threads),
        },
        arguments.repeats,
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = sum(map(len, ours.encode_batch(documents)))
    common = {
        "benchmark": "tokenize",
        "kind": kind,
        "vocab_size": arguments.vocab_size,
        "threads": threads,
        "documents": len(documents),
        "bytes": size,
    }
    for name, values in seconds.items():
        row = {"library": name, "mb_per_s": round(size / median[name] / 1e6, 2)}
        row |= {"seconds": [round(value, 4) for value in values]}
        print(json.dumps(common | row), flush=True)
    summary = {
        "ratio": round(median["sentencepiece"] / median["omnima"], 2),
        "bytes_per_token": round(size / tokens, 3),
        "training_seconds": round(training, 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(common | summary), flush=True)
    rates = {name: round(size / each / 1e6, 2) for name, each in median.items()}
    row = {"name": f"tokenize, {kind} of {arguments.vocab_size:,} pieces, {threads} threads"}
    row |= {"value": rates["omnima"], "unit": "MB/s", "beside": rates["sentencepiece"]}
    print(json.dumps(row), flush=True)


def main() -> None:
    """Read the arguments and measure both kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="default: text beside the clone, or pystdlib")
    parser.add_argument("--kinds", nargs="+", default=["bpe", "unigram"])
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "text" / "en_*"
    documents = read_documents(arguments.data or [str(beside)])
    if not documents and arguments.data:
        parser.error(f"no text in {' '.join(arguments.data)}")
    documents = documents or list(open_source("pystdlib").documents())
    for kind in arguments.kinds:
        measure(kind, documents, arguments)


if __name__ == "__main__":
    main()
