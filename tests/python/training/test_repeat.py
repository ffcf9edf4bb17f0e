"""A run is done again from its directory alone and comes out bit for bit, or says why not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import Model, Tokenizer
from omnima.errors import CheckpointError, ConfigError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.repeat import Repetition, _found, repeat
from omnima.training.rundir import RunDirectory
from omnima.training.trainer import Trainer

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
            "memory_budget": "8GB",
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
    notes.clear()
    (first / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl cannot be read"):
        repeat(first, {"out": str(tmp_path / "again")}, overwrite=True, display=display)
    assert notes == []  # before anything was done


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
        ({"out": "again", "lr": 0.1}, r"another run .*\(lr: 0.001 there, 0.1 here\)"),
        ({"out": "again", "patience": 2, "device": "cuda"}, "device: 'cpu' .*; patience: 0 there"),
        ({"out": "again", "restore_best": True}, "restore_best: False there, True here"),
        ({"out": "again", "eval_every": 5, "eval_batches": 1}, "eval_every: 2 .*eval_batches: 20"),
    ],
)
def test_what_is_no_repetition_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=said):
        repeat("run", flags, display=SILENT)
    assert not Path("again").exists()


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


@pytest.mark.parametrize("sets", [(), ("log_every=2",)])
def test_a_run_is_never_repeated_into_the_directory_of_its_recipe(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...]
) -> None:
    shutil.copytree(place / "run", tmp_path / "copy")
    shutil.copytree(place / "run", tmp_path / "run")  # what `out` of the recipe is from here
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for first in ("copy", place / "run"):
        with pytest.raises(ConfigError, match="Say where the repetition goes"):
            repeat(first, {}, sets, overwrite=True, display=SILENT)
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_is_compared_as_far_as_it_came(place: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(place / "run", first)
    (first / "model.safetensors").unlink()
    lines = (first / "metrics.jsonl").read_text().splitlines(keepends=True)
    (first / "metrics.jsonl").write_text(lines[0] + lines[1] + lines[2][:20])
    out = tmp_path / "again"
    _, found = repeat(first, {}, (f"out={out}",), display=SILENT)
    assert found.identical and found.steps == 2 and "all 2 records are" in found.sentence()
    # Nothing in common: that is told before the first step.
    (first / "metrics.jsonl").write_text(lines[0])
    with pytest.raises(ConfigError, match="nothing to compare .* a log_every of 2 would record"):
        repeat(first, {"out": str(tmp_path / "none"), "log_every": 2}, display=SILENT)
    (first / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match="nothing to compare"):
        repeat(first, {"out": str(tmp_path / "none")}, display=SILENT)
    assert not (tmp_path / "none").exists()
    nothing = Repetition("first", 0, None, None, ())
    assert not nothing.identical and nothing.sentence().startswith("Nothing was compared")
    weights = Repetition("first", 0, None, True, ())
    assert (
        weights.identical and weights.sentence() == "The same run: the weights are those of first."
    )


@pytest.fixture
def ordered(tmp_path: Path) -> Path:
    """A folder with a run by a curriculum, from paths that are all relative to it."""
    started = tmp_path / "there"
    started.mkdir()
    lines = (f"The {'very ' * (n % 5)}old cat saw {n} dogs.\n\n" for n in range(60))
    (started / "cats.txt").write_text("".join(lines))
    (started / "words.txt").write_text("".join(f"{n % 5}\n" for n in range(60)))
    Tokenizer.train(["The cats saw the dogs."], "byte").save_pretrained(started / "tokens")
    values = {
        "data": ["cats.txt"],
        "document_break": "^The",
        "tokenizer": "tokens",
        "curriculum": "words.txt",
        "offload_optimizer": "tokens",
        "model": {**TINY, "max_position_embeddings": 32},
        "precision": "fp32",
        "steps": 2,
        "batch_size": 2,
        "samples": 0,
        "out": "run",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(started)
        train(Recipe.from_layers(values), display=SILENT)
    return started


def test_paths_are_read_from_where_the_run_was_started(
    ordered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "here"
    elsewhere.mkdir()
    for name in ("cats.txt", "words.txt"):
        (elsewhere / name).write_text("Another text that only has the name.\n")
    (elsewhere / "tokens").mkdir()
    monkeypatch.chdir(elsewhere)
    run, found = repeat(ordered / "run", {"out": "again"}, display=SILENT)
    assert found.identical
    kept = Recipe.from_layers({}, config=run.path)
    assert kept.data == (str(ordered / "cats.txt"),)
    assert kept.tokenizer == kept.train.offload_optimizer == str(ordered / "tokens")
    assert kept.train.curriculum == str(ordered / "words.txt")
    flags = {"out": "third", "offload_optimizer": "tokens"}  # what a flag names is read from here
    run, found = repeat(ordered / "run", flags, display=SILENT)
    assert found.identical
    assert Recipe.from_layers({}, config=run.path).train.offload_optimizer == "tokens"


def test_where_only_the_scores_differ_the_text_is_not_blamed(ordered: Path, tmp_path: Path) -> None:
    (ordered / "words.txt").write_text("".join(f"{n % 7}\n" for n in range(60)))
    with pytest.raises(ConfigError, match="cannot be repeated: curriculum: ") as raised:
        repeat(ordered / "run", {"out": str(tmp_path / "again")}, display=SILENT)
    assert "The text is the same" in str(raised.value)
    assert "words.txt gives its documents other scores" in str(raised.value)


def test_built_in_names_are_no_paths(tmp_path: Path) -> None:
    data = ["tinyworld", "tinyworld:1KB", "pystdlib", "hf:a/b", "mine"]
    values = {
        "tokenizer": "byte",
        "clean": "duplicates",
        "curriculum": "length",
        "offload_optimizer": "cpu",
    }
    for name in [*data, *values.values()]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("a file of that name")
    wanted = Recipe.from_layers({**values, "data": data, "preset": "1m", "steps": 1})
    found = _found(wanted, tmp_path, set())
    assert found.data == (*wanted.data[:-1], str(tmp_path / "mine"))
    assert dataclasses.replace(found, data=wanted.data) == wanted
    assert _found(wanted, tmp_path, {"data"}) == wanted


def test_a_field_newer_than_the_run_counts_as_its_default(place: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(place / "run", first)
    known = json.loads((first / "run.json").read_text())
    del known["recipe"]["z_loss"]
    (first / "run.json").write_text(json.dumps(known))
    with pytest.raises(ConfigError, match=r"z_loss: 0\.0 there, 0\.5 here"):
        repeat(first, {"out": str(tmp_path / "again"), "z_loss": 0.5}, display=SILENT)
    assert (
        RunDirectory(first).differences("recipe", Recipe.from_layers({}, (), first).identity())
        == []
    )


@pytest.mark.parametrize(
    "part, value",
    [
        ("versions", None),
        ("versions", "2.0"),
        ("machine", None),
        ("machine", []),
        ("machine", {"threads": 2}),
        ("machine", {"threads": "two", "kernels": "avx2"}),
        ("machine", {"threads": 0, "kernels": "avx2"}),
        ("directory", 3),
        ("from_step", 4),
    ],
)
def test_a_damaged_provenance_is_told_once(
    place: Path, tmp_path: Path, part: str, value: Any
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "provenance.json"
    facts = json.loads(path.read_text())
    facts["sessions"][0][part] = value
    if value is None:
        del facts["sessions"][0][part]
    path.write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"its provenance.json cannot be read \("):
        repeat(tmp_path / "run", {"out": str(tmp_path / "again")}, display=SILENT)


def test_a_run_made_from_python_is_to_be_run_by_its_script(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["The cats saw the dogs."], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    config = {"steps": 1, "context": 16, "batch_size": 2, "samples": 0, "precision": "fp32"}
    trainer = Trainer(
        model, tokenizer, "tinyworld:10KB", {**config, "out": str(tmp_path / "run")}, display=SILENT
    )
    trainer.fit()
    with pytest.raises(ConfigError, match="made from Python; run its script again"):
        repeat(tmp_path / "run", {"out": str(tmp_path / "again")}, display=SILENT)
