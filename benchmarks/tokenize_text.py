"""Tokenization beside SentencePiece and Hugging Face tokenizers, on the same text.

    python benchmarks/tokenize_text.py [--full] [TEXT]

TEXT is what omnima.data.open_source takes: text beside the clone, or pystdlib, when not given.
The same from the command line: omnima bench tokenize --vocab-size 32000 --markdown
"""

from __future__ import annotations

import sys
from pathlib import Path

from omnima import benchmark
from omnima.benchmarking import markdown

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "text"


def main() -> None:
    given = [each for each in sys.argv[1:] if each != "--full"]
    beside = str(BESIDE / "en_*") if any(BESIDE.glob("en_*")) else "pystdlib"
    data = given[0] if given else beside
    kinds = ("bpe", "unigram") if "--full" in sys.argv[1:] else ("bpe",)
    for kind in kinds:
        report = benchmark("tokenize", kind=kind, vocab_size=32000, data=data, rounds=3)
        print(markdown(report), flush=True)


if __name__ == "__main__":
    main()
