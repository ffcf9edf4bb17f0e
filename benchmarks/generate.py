"""50 tokens from a 10M model, batch 1, float32: Omnima beside transformers with the same weights.

    python benchmarks/generate.py [--rounds N] [--threads N] [--shapes yardstick 10m]

Milliseconds for 50 tokens after a prompt of 8, for the likeliest token always and for draws: the
median of the rounds, the libraries in turns. Prints a JSON line a row of the common table, and one
a shape with all that was measured, such as the rate at which the weights were read.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import omnima
from omnima.config import ModelConfig, model_preset

VOCABULARY = 8192
PROMPT = list(range(10, 18))
NEW = 50
DRAWS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


def shape(name: str) -> ModelConfig:
    """Return a preset with 8,192 tokens, or the yardstick: 13.8M parameters in the same layers."""
    if name != "yardstick":
        return model_preset(name, vocab_size=VOCABULARY)
    return model_preset(
        "10m", vocab_size=VOCABULARY, intermediate_size=1024, max_position_embeddings=256
    )


def twin(model: omnima.Model) -> Any:
    """Return transformers' model of the same files."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        return AutoModelForCausalLM.from_pretrained(directory).eval()


def calls(model: omnima.Model, theirs: Any) -> dict[str, Callable[[], list[int]]]:
    """Return what is timed; each writes 50 ids."""
    prompt = torch.tensor([PROMPT])
    given = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": NEW, "eos_token_id": None}

    def with_transformers(**options: Any) -> list[int]:
        return theirs.generate(prompt, **given, **options)[0, len(PROMPT) :].tolist()

    return {
        "omnima": lambda: model.generate(PROMPT, max_new_tokens=NEW, temperature=0.0).ids,
        "omnima_draws": lambda: model.generate(PROMPT, max_new_tokens=NEW, **DRAWS).ids,
        "transformers": lambda: with_transformers(do_sample=False),
        "transformers_draws": lambda: with_transformers(do_sample=True, **DRAWS),
    }


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Time one shape."""
    model = omnima.Model.from_config(shape(name))
    timed = calls(model, twin(model))
    written = {key: call() for key, call in timed.items()}
    seconds: dict[str, list[float]] = {key: [] for key in timed}
    order, dice = list(timed.items()), random.Random(0)
    for _ in range(rounds):  # in turns, so that a busy machine is fair to all,
        dice.shuffle(order)  # whatever ran before
        for key, call in order:
            began = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - began)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        "benchmark": "generate",
        "shape": name,
        "parameters": model.num_parameters,
        "tokens": len(written["omnima"]),
        "threads": torch.get_num_threads(),
        "same_ids": written["omnima"] == written["transformers"],
        **{f"{key}_ms": round(1e3 * value, 1) for key, value in median.items()},
        **{f"{key}_best_ms": round(1e3 * min(values), 1) for key, values in seconds.items()},
        "ratio": round(median["transformers"] / median["omnima"], 1),
        "ratio_draws": round(median["transformers_draws"] / median["omnima_draws"], 1),
        "weights_gb_per_s": round(4e-9 * model.num_parameters * NEW / median["omnima"], 1),
    }


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a report adds to the common table."""
    ways = {"": "the likeliest", "_draws": "drawn with top-p 0.95"}
    return [
        {
            "benchmark": "generate",
            "name": f"{NEW} tokens, {report['parameters'] / 1e6:.1f}M float32, batch 1, {way}",
            "value": report[f"omnima{key}_ms"],
            "unit": "ms",
            "beside": report[f"transformers{key}_ms"],
        }
        for key, way in ways.items()
    ]


def main() -> None:
    """Read the arguments and measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--shapes", nargs="+", default=["yardstick", "10m"])
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    for name in arguments.shapes:
        report = measure(name, arguments.rounds)
        print(json.dumps(report), flush=True)
        for row in rows(report):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
