"""A run is done again from its directory alone and comes out bit for bit, or says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima.errors import CheckpointError, ConfigError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.repeat import repeat

SILENT = Display(silent=True)
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was started with a relative path to its text."""
    folder = tmp_path_factory.mktemp("place")
    lines = (f"The {n % 7} cats saw {n % 5} dogs.\n\n" for n in range(400))
    (folder / "cats.txt").write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = {
            "data": ["cats.txt"],
            "model": {**TINY, "max_position_embeddings": 32},
            "vocab_size": 300,
            "precision": "auto",
            "target_batch_tokens": 96,
            "memory_budget": "2GB",
            "steps": 5,
            "eval_every": 2,
            "samples": 1,
            "sample_tokens": 4,
            "out": "run",
        }
        train(Recipe.from_layers(values), display=SILENT)
    return folder


def test_a_run_is_repeated_bit_for_bit_from_anywhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    run, found = repeat(place / "run", {"out": "again", "log_every": 2}, display=SILENT)
    assert found.identical and found.same_weights and found.surroundings == ()
    assert found.first_difference is None and found.steps == 3  # of every second, and the last
    assert "all 3 records and the weights" in found.sentence()
    assert (run.path / "model.safetensors").read_bytes() == (
        place / "run" / "model.safetensors"
    ).read_bytes()
    assert torch.get_num_threads() == threads
    kept = Recipe.from_layers({}, config=run.path)  # a directory is its recipe
    assert kept.train.precision in ("fp32", "bf16") and kept.train.memory_budget is None
    assert kept.train.batch_size * kept.train.accumulate == 3
    with pytest.raises(ConfigError, match="already holds a run"):
        repeat(place / "run", {"out": "again"}, display=SILENT)


def test_what_came_out_otherwise_is_said(place: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(place / "run", first)
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    lines[2]["loss"] += 1e-9
    (first / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(first / "provenance.json", "torch", "1.0")
    notes: list[str] = []
    display = Display(silent=True)
    display.note = notes.append  # type: ignore[method-assign]
    (first / "model.safetensors").unlink()
    _, found = repeat(first, {"out": str(tmp_path / "again")}, display=display)
    assert not found.identical and found.first_difference == 3 and found.same_weights is None
    assert "step 3 is the first that differs (torch 1.0 there" in found.sentence()
    assert any("torch 1.0 there" in note for note in notes)
    assert found.as_dict()["identical"] is False
    (first / "model.safetensors").write_bytes(b"other weights")
    shutil.copy(place / "run" / "metrics.jsonl", first)
    _, found = repeat(first, {"out": str(tmp_path / "again")}, overwrite=True, display=SILENT)
    assert found.same_weights is False and "only the weights differ" in found.sentence()
    (first / "metrics.jsonl").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics.jsonl cannot be read"):
        repeat(first, {"out": str(tmp_path / "again")}, overwrite=True, display=SILENT)


def edit(path: Path, version: str, value: str) -> None:
    facts = json.loads(path.read_text())
    facts["sessions"][0]["versions"][version] = value
    path.write_text(json.dumps(facts))


def test_another_text_is_refused_before_the_first_step(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "cats.txt").write_text("The dogs saw the cats.\n\n" * 500)
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    facts["sessions"][0]["directory"] = str(tmp_path)
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"cannot be repeated: .*tokens: .*text was cats.txt"):
        repeat(tmp_path / "run", {"out": str(tmp_path / "again")}, display=SILENT)
    assert not (tmp_path / "again" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        ({}, "Say where"),
        ({"out": "run"}, "Say where"),
        ({"out": "again", "lr": 0.1}, "lr would make it another run"),
    ],
)
def test_what_is_no_repetition_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=said):
        repeat("run", flags, display=SILENT)


def test_a_run_on_the_clock_and_no_run_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run that can be repeated"):
        repeat(tmp_path, {"out": "again"})
    shutil.copytree(place / "run", tmp_path / "run")
    for name in ("config.yaml", "run.json"):
        text = (tmp_path / "run" / name).read_text()
        text = text.replace("steps: 5", "steps: null").replace("minutes: null", "minutes: 1.0")
        text = text.replace('"steps": 5', '"steps": null')
        text = text.replace('"minutes": null', '"minutes": 1.0')
        (tmp_path / "run" / name).write_text(text)
    with pytest.raises(ConfigError, match="ended on the clock"):
        repeat(tmp_path / "run", {"out": "again"})
