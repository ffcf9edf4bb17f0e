"""A small text and small recipes, for tests that do whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omnima.training.recipe import Recipe

STEPS = 8


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    lines = [f"The {n % 7} cats saw {n % 5} dogs.\n\n" for n in range(400)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def small(story: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of `STEPS` steps into tmp_path/run; changes are recipe keys."""

    def make(**changes: object) -> Recipe:
        values = {
            "data": [str(story)],
            "model": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 32,
            },
            "tokenizer": "byte",
            "batch_size": 2,
            "steps": STEPS,
            "precision": "fp32",
            "samples": 0,
            "eval_batches": 1,
            "eval_every": 4,
            "val_fraction": 0.2,
            "out": str(tmp_path / "run"),
            **changes,
        }
        return Recipe.from_layers(values)

    return make
