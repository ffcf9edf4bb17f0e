"""Eight texts at once with eight adapters on one base, beside the same texts with one adapter.

    python benchmarks/adapters_together.py MODEL [--rank 16] [--rounds 7] [--format f32|bf16]

MODEL is a directory or a GGUF file. The adapters are LoRA of random values at all linear layers.
Prints a JSON object a way of writing: tokens a second of all texts together, the median of the
rounds, in which the ways take turns; and the milliseconds that choosing another adapter takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import omnima
from omnima import _core
from omnima.generation import generate

TEXTS, PROMPT, NEW = 8, 64, 64


class Rounded:
    """The model with its matrices in bfloat16, for writing alone."""

    def __init__(self, model: omnima.Model) -> None:
        rounded = {
            name: each.detach().to(torch.bfloat16) if each.ndim == 2 else each.detach()
            for name, each in model.named_parameters()
        }
        self.engine = _core.Engine(model.core.config.values(), rounded)
        self.adapted = model.adapted


def with_adapters(path: str, rank: int) -> omnima.Model:
    model = omnima.Model.from_pretrained(path)
    draw = torch.Generator().manual_seed(1)
    for number in range(TEXTS):
        model.add_adapter("lora", name=str(number), rank=rank, seed=number)
        with torch.no_grad():
            for name, each in model.adapter_parameters(str(number)):
                if "lora_B" in name:
                    each.copy_(torch.randn(each.shape, generator=draw) * 0.01)
    model.set_adapters({})
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--format", choices=["f32", "bf16"], default="f32")
    given = parser.parse_args()
    model = with_adapters(given.model, given.rank)
    writer: Any = model if given.format == "f32" else Rounded(model)
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(10, model.config.vocab_size, (TEXTS, PROMPT), generator=draw).tolist()

    def seconds(adapters: Any, new: int) -> float:
        start = time.perf_counter()
        generate(
            writer,
            None,
            prompts,
            adapters=adapters,
            max_new_tokens=new,
            temperature=0.0,
            ignore_eos=True,
        )
        return time.perf_counter() - start

    ways: dict[str, Callable[[int], float]] = {
        "no adapter": lambda new: seconds({}, new),
        "one adapter": lambda new: seconds("0", new),
        "eight adapters": lambda new: seconds([str(i) for i in range(TEXTS)], new),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for each in ways.values():
        each(4)
    for _ in range(given.rounds):
        for name, each in ways.items():
            taken = each(NEW) - each(1)
            found[name].append(TEXTS * (NEW - 1) / taken)
    choosing = []
    for i in range(40):
        start = time.perf_counter()
        model.set_adapters(str(i % TEXTS))
        choosing.append(1e3 * (time.perf_counter() - start))
    for name, rates in found.items():
        row = {"way": name, "tokens_per_second": round(statistics.median(rates), 1)}
        print(json.dumps(row))
    print(json.dumps({"way": "set_adapters", "ms": round(statistics.median(choosing), 4)}))


if __name__ == "__main__":
    main()
