"""Training beside PyTorch, transformers and litgpt at the shapes of the tables; and the loss alone.

    python benchmarks/train.py [--full]

Prints a Markdown table a shape. Without --full the large shapes are measured in bf16 only, and
beside PyTorch only.
The same from the command line: omnima bench train --preset bench-13.9m --markdown
"""

from __future__ import annotations

import sys
from typing import Any

from omnima import benchmark
from omnima.benchmarking import markdown

TORCH = ["torch-eager", "torch-compile"]
#: (task, preset, options of the quick run)
TABLES: list[tuple[str, str, dict[str, Any]]] = [
    ("train", "bench-1.9m", {"rounds": 3, "seconds": 1.0}),
    ("train", "bench-13.9m", {"rounds": 2, "seconds": 3.0}),
    (
        "train",
        "bench-13.9m-long",
        {"rounds": 2, "seconds": 3.0, "precision": "bf16", "peers": TORCH},
    ),
    ("evaluate", "bench-13.9m", {"rounds": 2, "seconds": 2.0, "precision": "bf16"}),
    ("train", "bench-124m", {"rounds": 1, "seconds": 8.0, "precision": "bf16", "peers": TORCH}),
]
FULL = {"rounds": 5, "seconds": 5.0}


def main() -> None:
    full = "--full" in sys.argv[1:]
    for task, preset, quick in TABLES:
        report = benchmark(
            task,
            preset=preset,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            **(FULL if full else quick),
        )
        print(markdown(report), flush=True)


if __name__ == "__main__":
    main()
