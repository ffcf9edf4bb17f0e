"""What other optimizers reach beside AdamW on the same text, model and order of batches: by
default Muon with 0.75 of AdamW's tokens (it should come as low), and AdamW with 8-bit state with as
many (it should end within 0.5%). Each run has a schedule of its own length, so that all cool down;
give each optimizer its own best learning rate.

    python benchmarks/optimizers.py --preset 10m --steps 2000 --lr 2e-3 --runs muon:0.75:4e-3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe

RUNS = ("muon:0.75", "adamw_8bit:1")


def final_loss(
    optimizer: str, steps: int, lr: float, options: argparse.Namespace, place: Path
) -> float:
    """Train once; the held-out loss at the end, in nats a token."""
    recipe = Recipe.from_layers(
        {
            "data": options.data,
            "preset": options.preset,
            "context": options.context,
            "batch_size": options.batch_size,
            "optimizer": optimizer,
            "lr": lr,
            "steps": steps,
            "samples": 0,
            "out": str(place / f"{optimizer}-{steps}"),
        },
        options.set,
    )
    run = train(recipe, display=Display(sys.stderr))
    loss = run.summary["val_loss"]
    if loss is None:
        raise SystemExit("This benchmark needs held-out text: give more --data.")
    return float(loss)


def main() -> int:
    """Train AdamW and the others; print how far each ends from AdamW."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["tinyworld"])
    parser.add_argument("--preset", default="10m")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--set", action="append", default=[], help="any recipe key, as key=value")
    parser.add_argument(
        "--runs", nargs="+", default=list(RUNS), help="OPTIMIZER:SHARE of the steps[:LR]"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        beside = final_loss("adamw", options.steps, options.lr, options, Path(folder))
        for each in options.runs:
            optimizer, *rest = each.split(":")
            share, lr = [*rest, *("1", options.lr)[len(rest) :]]
            steps = max(1, round(options.steps * float(share)))
            loss = final_loss(optimizer, steps, float(lr), options, Path(folder))
            name = f"{optimizer} with {float(share):g} of AdamW's tokens, held-out loss"
            print(json.dumps({"name": name, "value": loss, "unit": "nats", "beside": beside}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
