"""How far predictions are off: short runs of real shapes, each in a process of its own.

python benchmarks/foresight.py [--seconds 15] [--only 10m] [--check]

Prints a table of what each run predicted before its first step and what came; with --check it fails
where memory is off by more than 10% or time by more than 15%. Run it on an idle machine."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Preset, vocabulary, context, rows, micro-batches, precision.
SHAPES: list[list[Any]] = [
    ["nima", 1024, 256, 16, 1, "bf16"],
    ["1m", 2048, 256, 16, 1, "fp32"],
    ["1m", 2048, 512, 4, 1, "bf16"],
    ["5m", 2048, 512, 8, 2, "bf16"],
    ["10m", 8192, 256, 16, 1, "fp32"],
    ["10m", 8192, 512, 8, 1, "bf16"],
    ["10m", 32768, 2048, 2, 1, "bf16"],
    ["35m", 8192, 1024, 4, 1, "bf16"],
    ["35m", 32768, 512, 4, 1, "fp32"],
    ["125m", 50304, 512, 2, 1, "bf16"],
]
LIMITS = {"memory": 0.10, "time": 0.15}


def train(shape: list[Any], seconds: float, place: Path) -> None:
    """Train for about so many seconds and print what the run kept."""
    from omnima import Model, Tokenizer
    from omnima.config import model_preset
    from omnima.training import TrainConfig, Trainer
    from omnima.training.display import Display

    preset, vocab, context, rows, accumulate, precision = shape
    config = model_preset(preset, vocab_size=vocab, max_position_embeddings=context)
    text = place / "words.txt"
    text.write_text("The quick brown fox jumps over the lazy dog near the river.\n\n" * 20_000)
    training = TrainConfig(
        minutes=seconds / 60,
        batch_size=rows,
        accumulate=accumulate,
        precision=precision,
        eval_batches=1,
        samples=0,
        out=str(place / "run"),
    )
    # Bytes stand for the text: the model's vocabulary is what the shape says, whatever is read.
    tokenizer = Tokenizer.train(["a"], "byte")
    model = Model.from_config(config)
    Trainer(model, tokenizer, str(text), training, display=Display(silent=True)).fit()
    print(json.dumps(json.loads((place / "run" / "foresight.json").read_text())))


def measure(shape: list[Any], seconds: float) -> dict[str, Any]:
    """Train a shape in a process of its own."""
    words = [sys.executable, __file__, "--shape", json.dumps(shape), "--seconds", str(seconds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(shape: list[Any], kept: dict[str, Any]) -> str:
    """One line of the table."""
    preset, vocab, context, rows, accumulate, precision = shape
    predicted, actual, errors = kept["predicted"], kept["actual"], kept["errors"]
    batch = f"{rows} x {accumulate}" if accumulate > 1 else str(rows)
    return (
        f"| {preset}, {vocab:,} | {context:,} | {batch} | {precision} "
        f"| {predicted['memory_bytes'] / 1e6:,.0f} | {actual['memory_bytes'] / 1e6:,.0f} "
        f"| {errors['memory']:+.1%} | {predicted['tokens_per_s']:,.0f} "
        f"| {actual['tokens_per_s']:,.0f} | {errors['time']:+.1%} |"
    )


def main() -> None:
    """Measure every shape, or those of the preset that is asked for."""
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--seconds", type=float, default=15.0, help="of each run, about")
    reader.add_argument("--check", action="store_true", help="fail where a limit is passed")
    reader.add_argument("--only", help="the preset to measure; default: all")
    reader.add_argument("--shape", type=json.loads, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.shape:
        with tempfile.TemporaryDirectory() as place:
            train(asked.shape, asked.seconds, Path(place))
        return
    print("| preset, vocabulary | context | rows | format | predicted MB | real MB ", end="")
    print("| error | predicted tokens/s | real tokens/s | error of time |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    missed = 0
    for shape in SHAPES:
        if asked.only in (None, shape[0]):
            kept = measure(shape, asked.seconds)
            print(row(shape, kept), flush=True)
            missed += any(abs(kept["errors"][name]) > limit for name, limit in LIMITS.items())
    if asked.check and missed:
        sys.exit(f"{missed} shapes were predicted worse than {LIMITS}.")


if __name__ == "__main__":
    main()
