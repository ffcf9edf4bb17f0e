"""Measure the way of text: TinyWorld, prepare and warm start, in MB/s and seconds.

python benchmarks/data.py [--corpus-mb 1000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from omnima import Tokenizer
from omnima.data import TinyWorld, open_source, prepare

MB = 1_000_000


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def make_corpus(directory: Path, megabytes: int) -> Path:
    """A text file of stories of about that size."""
    path = directory / "corpus.txt"
    texts = [text for text, _ in TinyWorld(9).documents(size=10 * MB)]
    block = "\n<|endoftext|>\n".join(texts) + "\n<|endoftext|>\n"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(max(1, round(megabytes * MB / len(block)))):
            file.write(block)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus-mb", type=int, default=20, help="size of the corpus on disk")
    arguments = parser.parse_args()
    generation = seconds(lambda: list(TinyWorld(1).documents(size=8 * MB)))
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        corpus = make_corpus(directory, arguments.corpus_mb)
        size = corpus.stat().st_size / MB
        tokenizer = Tokenizer.train(TinyWorldTexts(2 * MB), "bpe", vocab_size=1024)
        first = seconds(lambda: prepare(open_source(corpus), tokenizer, directory / "cache"), 1)
        warm = seconds(lambda: prepare(open_source(corpus), tokenizer, directory / "cache"))
        data = prepare(open_source(corpus), tokenizer, directory / "cache")
        loader = data.loader("train", 16, 512)
        batches = seconds(lambda: [loader.next() for _ in range(200)])
    for name, value, unit in (
        ("TinyWorld", 8 / generation, "MB/s"),
        (f"prepare {size:.0f} MB, BPE 1024", size / first, "MB/s"),
        (f"start on {size:.0f} MB already tokenized", warm, "s"),
        ("loader, windows of 512", 200 * 16 * 512 / batches, "tokens/s"),
    ):
        print(json.dumps({"name": name, "value": value, "unit": unit}))


class TinyWorldTexts:
    """The texts of a TinyWorld, to be gone through again and again."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self):  # type: ignore[no-untyped-def]
        return (text for text, _ in TinyWorld(3).documents(size=self.size))


if __name__ == "__main__":
    main()
