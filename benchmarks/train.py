"""Training beside PyTorch, transformers and litgpt at the shapes of the tables; and the loss alone.

    python benchmarks/train.py [--full]
    python benchmarks/train.py --sparse

Prints a Markdown table a shape. Without --full the large shapes are measured in bf16 only, and
beside PyTorch only. With --sparse instead: block-sparse attention beside dense, on long rows.
The same from the command line: omnima bench train --preset bench-13.9m --markdown
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from typing import Any

from omnima import benchmark
from omnima.benchmarking import markdown, shape_of
from omnima.benchmarking.bench import check_threads
from omnima.benchmarking.process import WorkerProcess

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
SPARSE: dict[str, dict[str, int]] = {
    "dense": {},
    "Phi-3-small's: blocks of 64, 16 local, every 8th; every 2nd layer dense": {
        "blocksparse_block_size": 64,
        "blocksparse_num_local_blocks": 16,
        "dense_attention_every_n_layers": 2,
    },
    "blocks of 64, 16 local, every 8th": {
        "blocksparse_block_size": 64,
        "blocksparse_num_local_blocks": 16,
    },
    "blocks of 64, 4 local, every 8th": {"blocksparse_block_size": 64},
    "window of 256": {"sliding_window": 256},
}


def sparse(rounds: int = 4, seconds: float = 3.0) -> None:
    """Print steps of dense and of block-sparse attention, in turns, each in its own process."""
    shape, threads = shape_of("bench-13.9m-long"), check_threads(None)
    common = {"do": "job", "task": "train", "system": "omnima", "threads": threads, "seed": 0}
    print("| attention | format | ms a step | of dense | products of a step | peak MiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for precision in ("bf16", "fp32"):
        with contextlib.ExitStack() as stack:
            running: dict[str, Any] = {}
            turns: dict[str, list[float]] = {name: [] for name in SPARSE}
            flops: dict[str, float] = {}
            for name, changes in SPARSE.items():
                own = type(shape)(name, {**shape.model, **changes}, shape.batch_size)
                flops[name] = own.flops("train")
                running[name] = stack.enter_context(WorkerProcess())
                running[name].ask({**common, "precision": precision, "shape": own.as_dict()})
            for _ in range(rounds):
                for name, worker in running.items():
                    told = worker.ask({"do": "turn", "seconds": seconds})["seconds"]
                    turns[name].append(statistics.median(told))
            for name, worker in running.items():
                ratio = statistics.median(
                    mine / dense for mine, dense in zip(turns[name], turns["dense"], strict=True)
                )
                cells = (
                    name,
                    precision,
                    f"{1e3 * statistics.median(turns[name]):,.0f}",
                    f"{ratio:.2f}",
                    f"{flops[name] / flops['dense']:.2f}",
                    f"{worker.ask({'do': 'end'})['peak_memory_bytes'] / 2**20:,.0f}",
                )
                print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    if "--sparse" in sys.argv[1:]:
        sparse()
        return
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
