"""How far predictions are off: short runs of real shapes, each in a process of its own.

python benchmarks/foresight.py [--seconds 8] [--memory] [--only 14M] [--check]

Prints a table of what each run predicted before its first step and what came; with --check it fails
where memory is off by more than 10% or time by more than 15%. All shapes take about five minutes.
Run it on an idle machine; with --memory, which trains two steps and leaves time out, that does not
matter."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMITS = {"memory": 0.10, "time": 0.15}
_MEMORY_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Shape:
    """One run: size, vocabulary and batch, and what else its model and training change."""

    size: str
    vocab: int
    context: int
    rows: int
    precision: str
    accumulate: int = 1
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    only_memory: bool = False  # its time says nothing, or takes too long

    @property
    def batch(self) -> str:
        """Rows of a step as the table shows them."""
        return f"{self.rows} x {self.accumulate}" if self.accumulate > 1 else str(self.rows)

    @property
    def options(self) -> str:
        """What the model and the training change, as the table shows it."""
        told = {**self.model, **self.training}
        return ", ".join(f"{key} {value}" for key, value in told.items())


_EXPERTS = {"num_experts": 8, "moe_intermediate_size": 320}
SHAPES = [
    Shape("1M", 2048, 128, 32, "fp32"),
    Shape("1M", 2048, 256, 16, "bf16"),
    Shape("1M", 2048, 2048, 1, "bf16"),
    Shape("4M", 4096, 128, 16, "bf16"),
    Shape("4M", 4096, 512, 8, "fp32", accumulate=2),
    Shape("4M", 4096, 1024, 4, "bf16"),
    Shape("4M", 4096, 2048, 2, "fp32"),
    Shape("14M", 8192, 128, 32, "fp32"),
    Shape("14M", 8192, 512, 1, "fp32"),
    Shape("14M", 8192, 512, 8, "bf16"),
    Shape("14M", 32768, 2048, 2, "bf16"),
    Shape("40M", 16384, 128, 8, "fp32"),
    Shape("40M", 16384, 512, 1, "bf16"),
    Shape("40M", 16384, 1024, 4, "bf16"),
    Shape("40M", 16384, 2048, 1, "fp32", only_memory=True),
    Shape("4M", 4096, 512, 8, "bf16", training={"optimizer": "muon", "ema_decay": 0.99}),
    Shape("14M", 8192, 512, 4, "bf16", training={"checkpoint_layers": 64}),
    Shape("4M", 4096, 512, 8, "bf16", model={"prediction_heads": 2}),
    Shape("4M", 4096, 512, 8, "bf16", model={"causal": False}, training={"objective": "masked"}),
    Shape("4M", 4096, 512, 8, "bf16", training={"objective": "span"}),
    Shape("10M", 8192, 512, 8, "fp32", model=_EXPERTS),
    Shape("4M", 4096, 256, 2, "fp16", only_memory=True),
    Shape("124M", 50304, 512, 2, "bf16"),
    Shape("124M", 50304, 512, 2, "bf16", training={"offload_optimizer": "."}),
]


def train(shape: Shape, seconds: float, only_memory: bool, place: Path) -> None:
    """Train for about so many seconds and print what the run kept."""
    from omnima import Model, Tokenizer
    from omnima.config import config_for_parameters
    from omnima.training import TrainConfig, Trainer
    from omnima.training.display import Display
    from omnima.training.objective import special_tokens_of
    from omnima.training.recipe import parse_count

    config = config_for_parameters(
        parse_count(shape.size),
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        **shape.model,
    )
    text = place / "words.txt"
    text.write_text("The quick brown fox jumps over the lazy dog near the river.\n\n" * 20_000)
    budget = {"steps": _MEMORY_STEPS} if only_memory else {"minutes": seconds / 60}
    training = TrainConfig(
        **budget,
        batch_size=shape.rows,
        accumulate=shape.accumulate,
        precision=shape.precision,
        eval_batches=1,
        samples=0,
        out=str(place / "run"),
        **shape.training,
    )
    # Bytes stand for the text: the model's vocabulary is what the shape says, whatever is read.
    special = () if training.objective == "next_token" else special_tokens_of(training, 512)
    tokenizer = Tokenizer.train(["a"], "byte", special_tokens=special)
    model = Model.from_config(config)
    Trainer(model, tokenizer, str(text), training, display=Display(silent=True)).fit()
    kept = json.loads((place / "run" / "foresight.json").read_text())
    print(json.dumps({**kept, "parameters": config.num_parameters}))


def measure(shape: Shape, seconds: float, only_memory: bool) -> dict[str, Any]:
    """Train a shape in a process of its own."""
    words = [sys.executable, __file__, "--shape", json.dumps(dataclasses.asdict(shape))]
    words += ["--seconds", str(seconds), *(["--memory"] if only_memory else [])]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(shape: Shape, kept: dict[str, Any], only_memory: bool) -> str:
    """One line of the table."""
    predicted, actual, errors = kept["predicted"], kept["actual"], kept["errors"]
    told = (
        f"| {kept['parameters'] / 1e6:.1f}M, {shape.vocab:,} | {shape.context:,} | {shape.batch} "
        f"| {shape.precision} | {shape.options} | {predicted['memory_bytes'] / 1e6:,.0f} "
        f"| {actual['memory_bytes'] / 1e6:,.0f} | {errors['memory']:+.1%} |"
    )
    if only_memory:
        return f"{told} | | |"
    return (
        f"{told} {predicted['tokens_per_s']:,.0f} | {actual['tokens_per_s']:,.0f} "
        f"| {errors['time']:+.1%} |"
    )


def missed(kept: dict[str, Any], only_memory: bool) -> list[str]:
    """Return what was predicted worse than its limit."""
    judged = ["memory"] if only_memory else list(LIMITS)
    return [name for name in judged if abs(kept["errors"][name]) > LIMITS[name]]


def main() -> None:
    """Measure every shape, or those of the size that is asked for."""
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--seconds", type=float, default=8.0, help="of each run, about")
    reader.add_argument("--memory", action="store_true", help="memory alone: two steps a shape")
    reader.add_argument("--check", action="store_true", help="fail where a limit is passed")
    reader.add_argument("--only", help="the size to measure, such as 14M; default: all")
    reader.add_argument("--shape", type=json.loads, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.shape:
        with tempfile.TemporaryDirectory() as place:
            train(Shape(**asked.shape), asked.seconds, asked.memory, Path(place))
        return
    print("| parameters, vocabulary | context | rows | format | options | predicted MB ", end="")
    print("| real MB | error | predicted tokens/s | real tokens/s | error of time |")
    print("| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    failures = []
    for shape in SHAPES:
        if asked.only in (None, shape.size):
            only_memory = asked.memory or shape.only_memory
            kept = measure(shape, asked.seconds, only_memory)
            print(row(shape, kept, only_memory), flush=True)
            failures += [f"{shape}: {name}" for name in missed(kept, only_memory)]
    if asked.check and failures:
        sys.exit(f"Predicted worse than {LIMITS}:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
