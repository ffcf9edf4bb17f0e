"""Small whole runs for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.run import Run

MODEL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def write_story(path: Path) -> Path:
    lines = [f"The {n % 7} cats saw {n % 5} dogs.\n\n" for n in range(400)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def recipe(out: Path, text: Path | str, /, **changes: object) -> Recipe:
    """A recipe of few steps into a directory; changes are recipe keys."""
    values = {
        "data": [str(text)],
        "model": MODEL,
        "tokenizer": "byte",
        "batch_size": 2,
        "steps": 8,
        "precision": "fp32",
        "samples": 0,
        "eval_batches": 1,
        "val_fraction": 0.2,
        "out": str(out),
        **changes,
    }
    return Recipe.from_layers(values)


def quiet(wanted: Recipe, **how: object) -> Run:
    return train(wanted, display=Display(silent=True), **how)  # type: ignore[arg-type]
