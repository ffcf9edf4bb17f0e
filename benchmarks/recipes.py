"""What the recipes of real text reach: held-out bits per byte, in their time or a shorter one.

    python benchmarks/recipes.py --data FOLDER [--minutes M] [--peer] [NAME ...]
    python benchmarks/recipes.py --data FOLDER --steps N --peer-steps P english

FOLDER holds the texts that the recipes in `examples/recipes` name (also below it); a recipe whose
text is not there is passed over. `--peer` then gives transformers' Llama of the same shape, under
torch.compile, as long on the same tokens: fused AdamW, bf16 autocast, warm-up and a cosine. Both
are scored by the same program. On a machine that does other work, too, measure what each does in a
few quiet minutes and give the steps of the full time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

import omnima
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ROOT.parent / "shared" / "data"
PEER_LR = 1.5e-3  # AdamW's, for models of this size; our recipes may have other optimizers
NAMES = ("spanish", "french", "chinese_poetry", "python_code", "english")


def recipe_of(
    name: str, texts: Path, place: Path, minutes: float | None, steps: int | None
) -> Recipe | None:
    """The recipe with its texts found below a folder; None where one is missing."""
    path = ROOT / "examples" / "recipes" / f"{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    given = values["data"] if isinstance(values["data"], list) else [values["data"]]
    if given != ["pystdlib"]:
        found = [sorted(texts.rglob(each)) for each in given]
        if not all(found):
            return None
        values["data"] = [str(each[0]) for each in found]
    values |= {"out": str(place / name), "samples": 0}
    if minutes is not None:
        values["minutes"] = minutes
    if steps is not None:
        del values["minutes"]
        values["steps"] = steps
    return Recipe.from_layers(values)


def tokens_of(recipe: Recipe, run: Path) -> omnima.data.TokenData:
    """The token data that a run has made."""
    source = omnima.data.open_source(
        list(recipe.data), recipe.field, document_break=recipe.document_break
    )
    tokenizer = omnima.Tokenizer.from_pretrained(run)
    return omnima.data.prepare(
        source, tokenizer, run / "data", recipe.val_fraction, recipe.train.seed
    )


def bits_per_byte(directory: Path, tokens: omnima.data.TokenData, context: int) -> float:
    """Held-out bits per byte of a Hugging Face directory."""
    from omnima._core import StepOptions, TrainStep
    from omnima.evaluation.held_out import score

    model = omnima.Model.from_pretrained(directory)
    step = TrainStep(model.core, StepOptions())
    return score(step, tokens, "val", 8, context).bits_per_byte


def add_dropout(model: Any, rate: float) -> None:
    """Dropout where our models have it: after the embedding, each attention and each MLP."""
    import torch

    def drop(module: Any, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (torch.nn.functional.dropout(output[0], rate), *output[1:])
        return torch.nn.functional.dropout(output, rate)

    if rate > 0:
        parts = [part for layer in model.model.layers for part in (layer.self_attn, layer.mlp)]
        for part in [model.model.embed_tokens, *parts]:
            part.register_forward_hook(drop)


def peer(
    recipe: Recipe, run: Path, tokens: omnima.data.TokenData, place: Path, limit: int | None
) -> dict[str, Any]:
    """Train transformers' Llama of the run's shape as many minutes, or `limit` steps; score its
    best state.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config, options = LlamaConfig.from_pretrained(run), recipe.train
    context = config.max_position_embeddings
    config.use_cache = False
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(config).train()
    add_dropout(model, omnima.Model.from_pretrained(run).config.dropout)
    fast = torch.compile(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEER_LR, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    loader = tokens.loader("train", options.batch_size, context, seed=options.seed)
    seconds = 60.0 * (options.minutes or 0.0)
    omnima.Tokenizer.from_pretrained(run).save_pretrained(place)
    steps, spent, best, done = 0, 0.0, math.inf, 0.0
    while done < 1:
        start = time.perf_counter()
        rate = min(1.0, (steps + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = PEER_LR * rate
        ids, labels, _ = loader.next()
        with torch.autocast("cpu", torch.bfloat16):
            logits = fast(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
        if steps > 3:  # compiled
            spent += time.perf_counter() - start
        done = steps / limit if limit else spent / seconds
        if steps % options.eval_every == 0 or done >= 1:  # beside the clock
            model.save_pretrained(place)
            now = bits_per_byte(place, tokens, context)
            print(f"peer, {done:.0%}: {now:.4f} bits per byte", file=sys.stderr)
            best = min(best, now)
    rate = (steps - 3) * options.batch_size * context / spent
    return {"bits_per_byte": best, "last": now, "steps": steps, "tokens_per_s": round(rate)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, default=TEXTS)
    parser.add_argument("--minutes", type=float, help="instead of each recipe's own")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--peer-steps", type=int, help="of the peer, instead of minutes")
    given = parser.parse_args()
    for name in given.names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_of(name, given.data, Path(folder), given.minutes, given.steps)
            if recipe is None:
                print(f"skipped: {name}; its texts are not below {given.data} (--data)")
                continue
            run = train(recipe, display=Display(sys.stderr))
            print(json.dumps({"recipe": name, **run.summary}), flush=True)
            beside: dict[str, Any] = {}
            if given.peer or given.peer_steps:
                tokens = tokens_of(recipe, run.path)
                beside = peer(recipe, run.path, tokens, Path(folder) / "peer", given.peer_steps)
                print(json.dumps({"peer of": name, **beside}), flush=True)
            budget = f"{given.steps} steps" if given.steps else f"{recipe.train.minutes:g} minutes"
            row = {"name": f"{name}, {budget}", "unit": "bits per byte"}
            row |= {"value": run.summary["val_bits_per_byte"]}
            print(json.dumps({**row, "beside": beside.get("bits_per_byte")}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
