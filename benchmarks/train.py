"""Training beside PyTorch, transformers and litgpt at the shapes of the tables; and the loss alone.

    python benchmarks/train.py [--full]
    python benchmarks/train.py --sparse [--full]

Prints a Markdown table a shape. Without --full the large shapes are measured in bf16 only, and
beside PyTorch only. With --sparse instead: block-sparse attention beside dense, on long rows.
The same from the command line: omnima bench train --preset bench-13.9m --markdown
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from omnima import benchmark
from omnima.benchmarking import markdown, shape_of
from omnima.benchmarking.shapes import Shape

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


def sparse(precisions: tuple[str, ...], rounds: int = 3) -> None:
    """Print steps with dense and with block-sparse attention, in turns, on one thread.

    What counts is the processor's time, which other work on the machine hardly changes.
    """
    import torch

    from omnima import _core

    torch.set_num_threads(1)
    shape = shape_of("bench-13.9m-long")
    ids = torch.randint(shape.model["vocab_size"], (shape.batch_size, shape.context))
    print("| attention | format | of a dense step | of its products |")
    print("| --- | --- | ---: | ---: |")
    for precision in precisions:
        options = _core.StepOptions()
        options.precision, options.schedule = precision, "constant"
        seconds: dict[str, list[float]] = {name: [] for name in SPARSE}
        flops: dict[str, float] = {}
        steps: dict[str, _core.TrainStep] = {}
        for name, changes in SPARSE.items():
            own = Shape(name, {**shape.model, **changes}, shape.batch_size)
            flops[name] = own.flops("train")
            steps[name] = _core.TrainStep(_core.Decoder(_core.DecoderConfig(own.model), 0), options)
        for number in range(rounds + 1):  # in the first one buffers find their sizes
            for name, step in steps.items():
                start = time.process_time()
                step.run_batches([(ids, ids)])
                if number:
                    seconds[name].append(time.process_time() - start)
        for name, taken in seconds.items():
            ratios = (
                statistics.median(
                    mine / dense for mine, dense in zip(taken, seconds["dense"], strict=True)
                ),
                flops[name] / flops["dense"],
            )
            print(f"| {name} | {precision} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def main() -> None:
    full = "--full" in sys.argv[1:]
    if "--sparse" in sys.argv[1:]:
        sparse(("bf16", "fp32") if full else ("bf16",))
        return
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
