"""The model card: written with every saved model, never over another's README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from omnima import Model
from omnima.errors import ConfigError
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.recipe import Recipe

from .runs import quiet
from .test_foresight import Notes


def rows(card: str) -> dict[str, str]:
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    return {key.strip(): value.strip() for _, key, value, _ in (x.split("|") for x in lines)}


def test_every_saved_model_says_what_it_is_made_of(small: Callable[..., Recipe]) -> None:
    run = quiet(small())
    header = (run.path / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(header)["pipeline_tag"] == "text-generation"
    card = rows((run.path / "README.md").read_text())
    version = json.loads((run.path / "run.json").read_text())["data_version"]
    assert {key: card[key] for key in ("data", "tokenizer", "tokens")} == {
        key: version[key] for key in ("data", "tokenizer", "tokens")
    }
    assert card["cleaning"] == "none" and card["steps"] == "8"
    assert card["held-out loss"] == f"{run.summary['val_loss']:.4f}"
    assert card["parameters"] == f"{run.summary['parameters']:,}"
    found = latest_checkpoint(run.path)
    assert found is not None
    on_the_way = rows((found.path / "model" / "README.md").read_text())
    assert on_the_way["data"] == version["data"] and on_the_way["steps"] == "8"
    # The card is part of what the manifest of a checkpoint vouches for.
    manifest = (found.path / "manifest.json").read_text()
    assert "model/README.md" in manifest


def test_another_readme_stays(small: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "README.md").write_text("Mine.")
    notes = _notes(small(val_fraction=0.0, steps=1))
    assert (tmp_path / "run" / "README.md").read_text() == "Mine."
    assert any("stays as it is" in said for said in notes.said)


def _notes(wanted: Recipe) -> Notes:
    from omnima.training.launch import train

    notes = Notes()
    train(wanted, display=notes)
    return notes


def test_a_license_and_public_sources_are_named(small: Callable[..., Recipe]) -> None:
    run = quiet(small(license="cc-by-4.0", data=["tinyworld:20KB"], val_fraction=0.0, steps=1))
    text = (run.path / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-4.0"
    assert "License: cc-by-4.0." in text and rows(text)["sources"] == "tinyworld:20KB"
    with pytest.raises(ConfigError, match="license is 'MIT License'"):
        small(license="MIT License")


def test_paths_of_ones_own_files_are_not_named(small: Callable[..., Recipe], story: Path) -> None:
    run = quiet(small(val_fraction=0.0, steps=1))
    text = (run.path / "README.md").read_text()
    assert rows(text)["sources"] == "own files (1)" and str(story) not in text
    assert "License: unknown; nobody has said one." in text
    loaded = Model.from_pretrained(run.path)
    loaded.save_pretrained(run.path / "copy")
    copy = (run.path / "copy" / "README.md").read_text()
    assert rows(copy) == rows(text)  # a copy has the same data, training and results
