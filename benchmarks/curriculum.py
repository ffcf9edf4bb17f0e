"""What a curriculum brings: the held-out loss of a model of about 1M parameters after the same
steps in plain order and from easy to hard, by length, by a small model's loss, and by given scores
(how rare the words of a document are). Each order is trained with several seeds, which change the
first weights and the shuffling; a difference is taken between runs of the same seed.

    python benchmarks/curriculum.py --data tinyworld:2MB --steps 600 --seeds 3
    python benchmarks/curriculum.py --data tales.txt --document-break '^\\s*$'
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from omnima import Model, Tokenizer
from omnima.config import model_preset
from omnima.data import open_source, prepare
from omnima.training import TrainConfig, Trainer
from omnima.training.display import Display

ORDERS = ("plain", "length", "loss", "rare words")
HALF, END = "after half of the steps", "at the end"


def rarity(texts: list[str]) -> list[float]:
    """The mean information of each document's words, in nats, from how often they come in all."""
    counts = Counter(word for text in texts for word in text.split())
    total = sum(counts.values())
    means = []
    for text in texts:
        words = text.split() or [""]
        means.append(statistics.fmean(math.log(total / max(1, counts[word])) for word in words))
    return means


class Bench:
    """A text that is ready: its tokens, a small model that scores, and a file of scores."""

    def __init__(self, options: argparse.Namespace, place: Path) -> None:
        self.options, self.place = options, place
        source = open_source(options.data, document_break=options.document_break)
        self.tokenizer = Tokenizer.train(source.documents(), "bpe", vocab_size=options.vocab_size)
        self.data = prepare(source, self.tokenizer, place / "tokens", 0.05)
        scores = place / "rarity.txt"
        scores.write_text("".join(f"{each}\n" for each in rarity(list(source.documents()))))
        self.curricula = {
            "length": "length",
            "rare words": str(scores),
            "loss": str(place / "small"),
        }
        print(
            f"{self.data.train_documents:,} documents of {self.data.train_tokens:,} training "
            f"tokens, {self.data.val_tokens:,} held-out ones; {options.steps} steps of "
            f"{options.batch_size * options.context:,} tokens"
        )

    def train(self, preset: str, steps: int, seed: int, out: Path, **changes: Any) -> Any:
        """One run; returns it."""
        shape = model_preset(
            preset,
            vocab_size=self.tokenizer.vocab_size,
            max_position_embeddings=self.options.context,
        )
        config = TrainConfig(
            steps=steps,
            seed=seed,
            batch_size=self.options.batch_size,
            packing="documents",
            lr=self.options.lr,
            precision=self.options.precision,
            eval_every=max(1, steps // 2),
            eval_batches=1000,
            samples=0,
            alerts=("off",),
            out=str(out),
            **changes,
        )
        model = Model.from_config(shape, seed=seed)
        return Trainer(model, self.tokenizer, self.data, config, display=Display(silent=True)).fit()

    def losses(self, order: str, seed: int) -> dict[str, float]:
        """The held-out loss of an order in the middle and at the end, in nats a token."""
        changes: dict[str, Any] = {}
        if order != "plain":
            changes = {
                "curriculum": self.curricula[order],
                "curriculum_pacing": self.options.pacing,
                "curriculum_start": self.options.start,
                "curriculum_steps": round(self.options.share * self.options.steps),
            }
        out = self.place / f"{order}-{seed}"
        run = self.train(self.options.preset, self.options.steps, seed, out, **changes)
        known = [each["val_loss"] for each in run.history if each.get("val_loss") is not None]
        return {HALF: known[0], END: float(run.summary["val_loss"])}


def table(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the means over the seeds so far."""
    seeds = len(found["plain"])
    print(f"\n| order | {HALF} | from plain | {END} | from plain |\n| --- " + "| ---: " * 4 + "|")
    for order, runs in found.items():
        cells = [order]
        for when in (HALF, END):
            mean = statistics.fmean(run[when] for run in runs)
            gaps = [run[when] - plain[when] for run, plain in zip(runs, found["plain"])]
            spread = statistics.stdev(gaps) if seeds > 1 else 0.0
            gap = f"{statistics.fmean(gaps):+.4f} ± {spread:.4f}"
            cells += [f"{mean:.4f}", "" if order == "plain" else gap]
        print("| " + " | ".join(cells) + " |", flush=True)
    spread = [run[END] for run in found["plain"]]
    apart = max(spread) - min(spread)
    print(f"plain runs of {seeds} seeds lie {apart:.4f} apart at the end\n", flush=True)


def figures(found: dict[str, list[dict[str, float]]]) -> None:
    """Print a JSON line for each order."""
    for order in list(found)[1:]:
        value, beside = (statistics.fmean(run[END] for run in found[o]) for o in (order, "plain"))
        name = f"curriculum by {order}, held-out loss"
        print(json.dumps({"name": name, "value": value, "unit": "nats", "beside": beside}))


def main() -> int:
    """Train every order with every seed and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["tinyworld:1MB"])
    parser.add_argument("--document-break", default=None)
    parser.add_argument("--preset", default="1m")
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pacing", default="sqrt")
    parser.add_argument("--start", type=float, default=0.2)
    parser.add_argument("--share", type=float, default=0.5, help="of the steps: the curriculum")
    parser.add_argument("--orders", nargs="+", default=list(ORDERS), choices=ORDERS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        if "loss" in options.orders:  # a quarter of the steps on a model of half the size
            steps = max(1, options.steps // 4)
            bench.train("nima", steps, 1000, Path(bench.curricula["loss"]))
        orders = dict.fromkeys(["plain", *options.orders])
        found: dict[str, list[dict[str, float]]] = {order: [] for order in orders}
        for seed in range(options.seeds):
            for order in orders:
                found[order].append(bench.losses(order, seed))
                print(
                    f"seed {seed}, {order}: {found[order][-1][END]:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
            table(found)
        figures(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
