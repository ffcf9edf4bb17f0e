"""A small text and small recipes, for tests that do whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omnima.training.recipe import Recipe

from .runs import MODEL, recipe, write_story

STEPS = 8


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("text") / "story.txt")


@pytest.fixture
def small(story: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe of `STEPS` steps into tmp_path/run; changes are recipe keys."""

    def make(**changes: object) -> Recipe:
        return recipe(
            tmp_path / "run",
            story,
            **{
                "model": {**MODEL, "num_hidden_layers": 2},
                "steps": STEPS,
                "eval_every": 4,
                **changes,
            },
        )

    return make
