"""Runs of fine-tuning from a recipe, whole and in parts; shared by the tests of objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnima.training.display import Display
from omnima.training.finetune import run_recipe
from omnima.training.finetune_recipe import FineTuneRecipe


def once(out: Path, given: dict[str, Any], **how: Any) -> Any:
    """The run of a recipe into a directory."""
    recipe = FineTuneRecipe.from_layers({**given, "out": str(out)})
    return run_recipe(recipe, display=Display(silent=True), **how)


def whole_and_resumed(place: Path, given: dict[str, Any]) -> tuple[Any, Any]:
    """A run, and the same one stopped after three steps and resumed; their weights are the same."""
    whole = once(place / "whole", given)
    once(place / "parts", given, stop_after=3)
    parts = once(place / "parts", given, resume=True)
    files = [each.name for each in whole.path.glob("*model.safetensors")]  # an adapter's, or all
    assert len(files) == 1
    assert (whole.path / files[0]).read_bytes() == (parts.path / files[0]).read_bytes()
    return whole, parts
