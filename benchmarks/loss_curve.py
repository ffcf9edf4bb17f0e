"""Does training lie on the reference's curve? The same small Llama, trained by transformers with
torch's AdamW in float32 (the reference), by Omnima in float32 and bfloat16, and by transformers
under autocast: same initial weights, same batches, same hyper-parameters.

The distance is that between smoothed losses. Its measure is the spread of seeds: how far the
reference's curves lie apart when only the initial weights and the order of the batches change.

    python benchmarks/loss_curve.py --steps 1000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

import omnima
from omnima import _core
from omnima.data import open_source

if TYPE_CHECKING:
    import numpy.typing as npt

    Curve = npt.NDArray[np.float64]

SHAPE = {
    "vocab_size": 256,  # bytes
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ROWS, CONTEXT = 8, 64
LR, BETAS, WEIGHT_DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
WINDOW = 25  # steps over which a loss is smoothed
# Shares of the spread of seeds within which a curve must lie: everywhere, and in the mean. In
# float32 only the order of sums differs, which training still amplifies now and then.
BOUNDS = {"float32": (0.5, 0.1), "bfloat16": (1.0, 0.5)}


def text() -> torch.Tensor:
    """The bytes of built-in stories."""
    joined = "\n".join(open_source("tinyworld:1MB").documents()).encode()
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8).long()


def batches(
    tokens: torch.Tensor, seed: int, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random windows: inputs and the tokens that follow them."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT - 1, (ROWS, 1), generator=generator)
        rows = tokens[starts + torch.arange(CONTEXT + 1)]
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def ours(tokens: torch.Tensor, seed: int, steps: int, precision: str) -> list[float]:
    """The losses of our step."""
    options = _core.StepOptions()
    options.precision = {"float32": "fp32", "bfloat16": "bf16"}[precision]
    options.lr, (options.beta1, options.beta2) = LR, BETAS
    options.weight_decay, options.clip_norm, options.schedule = WEIGHT_DECAY, CLIP, "constant"
    step = _core.TrainStep(omnima.Model.from_config(SHAPE, seed=seed).core, options)
    return [step.run_batches([batch]).loss for batch in batches(tokens, seed, steps)]


def reference(tokens: torch.Tensor, seed: int, steps: int, precision: str) -> list[float]:
    """The losses of transformers, from the weights that our seed gives."""
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        omnima.Model.from_config(SHAPE, seed=seed).save_pretrained(directory)
        model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).train()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8)
    losses = []
    for ids, labels in batches(tokens, seed, steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def smoothed(losses: list[float]) -> Curve:
    """Means over a moving window."""
    return np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")


def measure(steps: int, seeds: int) -> dict[str, Curve]:
    """Train every system once, and the reference with `seeds` other seeds."""
    tokens = text()
    runs = {
        "reference": (reference, 0, "float32"),
        "float32": (ours, 0, "float32"),
        "bfloat16": (ours, 0, "bfloat16"),
        "transformers, autocast bfloat16": (reference, 0, "bfloat16"),
        **{f"seed {seed}": (reference, seed, "float32") for seed in range(1, seeds + 1)},
    }
    curves = {}
    for name, (train, seed, precision) in runs.items():
        start = time.perf_counter()
        curves[name] = smoothed(train(tokens, seed, steps, precision))
        seconds = time.perf_counter() - start
        print(f"{name:>32}: {curves[name][-1]:.4f} nats at the end, {seconds:.1f} s", flush=True)
    return curves


def compare(curves: dict[str, Curve]) -> bool:
    """Print how far the curves lie from the reference; whether ours lie near enough."""
    base = curves["reference"]
    same = np.stack([base, *(curve for name, curve in curves.items() if name[:4] == "seed")])
    spread = float((same.max(axis=0) - same.min(axis=0)).mean())
    print(f"spread of {len(same)} seeds: {spread:.4f} nats, the mean over the curve")
    fits = True
    for name in ("float32", "bfloat16", "transformers, autocast bfloat16"):
        distance = np.abs(curves[name] - base)
        print(
            f"{name:>32}: at most {distance.max():.5f} nats from the reference, "
            f"{distance.mean():.5f} in the mean; {distance.max() / spread:.1%} of the spread"
        )
        row = {"name": f"{name}, largest distance", "value": float(distance.max()), "unit": "nats"}
        print(json.dumps({**row, "beside": spread}))
        largest, mean = BOUNDS.get(name, (np.inf, np.inf))
        fits = fits and distance.max() <= largest * spread and distance.mean() <= mean * spread
    return fits


def main() -> int:
    """Measure and compare; 1 when a curve of ours leaves its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3, help="other seeds of the reference")
    options = parser.parse_args()
    if compare(measure(options.steps, options.seeds)):
        return 0
    print("Omnima's curve leaves the bounds around the reference's", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
