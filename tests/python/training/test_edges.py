"""What rarely happens to a run: broken state files, foreign weights, a missing drawing library."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from omnima.errors import CheckpointError, ConfigError, NonFiniteError, OmnimaError
from omnima.training import TrainConfig, Trainer, verify
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.nonfinite import explain, save_batches
from omnima.training.recipe import Recipe
from omnima.training.schema import check_bounds, fields_of, read_value
from omnima.training.stepper import _part
from omnima.training.trainer import out_of

from .runs import MODEL, quiet
from .runs import recipe as longer


def recipe(out: Path, /, **changes: object) -> Recipe:
    return longer(out, "tinyworld:8KB", **{"steps": 4, **changes})


def test_a_broken_state_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    from omnima.training import loop

    wanted = recipe(tmp_path / "run")
    quiet(wanted, stop_after=2)
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    state = found.path / "state.json"
    manifest = found.path / "manifest.json"
    before = manifest.read_bytes()
    state.write_text("{}")
    # The manifest's hash finds this first; the loop itself must refuse it, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnima.training.checkpoint.CheckpointStore.latest", lambda self: found)
        with pytest.raises(CheckpointError, match="is not the state of a run"):
            quiet(wanted, resume=True)
    assert manifest.read_bytes() == before and loop.peak_memory() > 0


def test_a_resumed_run_without_a_checkpoint_begins_at_the_beginning(tmp_path: Path) -> None:
    import shutil

    wanted = recipe(tmp_path / "run")
    quiet(wanted, stop_after=2)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    said = tmp_path / "said"
    with open(said, "w") as stream:
        run = train(wanted, resume=True, display=Display(stream))
    assert run.summary["steps"] == 4 and "Nothing was saved yet" in said.read_text()


def test_records_are_as_sparse_as_asked(tmp_path: Path) -> None:
    run = quiet(recipe(tmp_path / "run", steps=9, log_every=4, eval_every=6))
    assert [each["step"] for each in run.history] == [4, 6, 8, 9]


def test_a_run_is_drawn_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = tmp_path / "said"
    with open(said, "w") as stream:
        run = train(recipe(tmp_path / "run"), display=Display(stream))
    assert "No loss curve" in said.read_text() and not (tmp_path / "run" / "loss.png").exists()
    assert run.summary["steps"] == 4


def test_a_trainer_prepares_its_own_text_and_names_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima import Model, Tokenizer
    from omnima.config import ModelConfig

    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train(["abc"], "byte")
    model = Model.from_config(ModelConfig(vocab_size=tokenizer.vocab_size, **MODEL))
    config = {"steps": 2, "batch_size": 2, "samples": 1, "sample_tokens": 4, "precision": "fp32"}
    run = Trainer(model, tokenizer, "tinyworld:8KB", config, display=Display(silent=True)).fit()
    assert run.checkpoint.parent.name == "runs" and len(run.samples) == 1
    assert model.generate("Once", max_new_tokens=3).new_tokens <= 3
    assert len(run.history) == 2 and run.plot().axes
    again = Trainer(
        model, tokenizer, "tinyworld:8KB", {**config, "out": str(run.path)}, display=Display()
    )
    assert again.fit(resume=True).summary == run.summary
    with pytest.raises(ConfigError, match="--out my-model"):
        out_of(TrainConfig(steps=1))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='has no "b"'):
        _part({"a": torch.zeros(2)}, "b", torch.zeros(2), tmp_path)
    with pytest.raises(CheckpointError, match=r"shape \[3\], this run needs \[2\]"):
        _part({"a": torch.zeros(3)}, "a", torch.zeros(2), tmp_path)


def test_evidence_of_a_loss_that_is_not_finite_holds_segments(tmp_path: Path) -> None:
    import numpy as np

    class Loader:
        def seek(self, position: int) -> None:
            self.position = position

        def next(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 3)

    with np.load(save_batches(Loader(), 5, 2, tmp_path)) as kept:
        assert set(kept) == {
            f"{name}_{n}" for name in ("input_ids", "labels", "segments") for n in (0, 1)
        }
    told = str(explain(NonFiniteError("The loss is nan."), 7, tmp_path, 0.1, "bf16"))
    assert "lr is 0.1 and precision bf16" in told and "Step 7" in told


def test_verifying_tells_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OmnimaError, match="resumed process failed"):
        verify._resume_elsewhere(tmp_path / "nothing here")
    monkeypatch.setattr("omnima.training.checkpoint.latest_checkpoint", lambda path: None)
    with pytest.raises(CheckpointError, match="nothing can be compared"):
        verify._hashes(tmp_path)


def test_a_run_from_before_a_field_was_there_goes_on(tmp_path: Path) -> None:
    wanted = recipe(tmp_path / "run")
    straight = quiet(wanted)
    path = Path(straight.path)
    expected = (path / "model.safetensors").read_bytes()
    quiet(wanted, overwrite=True, stop_after=2)
    known = json.loads((path / "run.json").read_text())
    for part, newer in (
        ("recipe", ("curriculum_pacing", "curriculum_start")),
        ("facts", ("model.num_experts", "model.dense_attention_every_n_layers")),
    ):
        for field in newer:
            del known[part][field]
    (path / "run.json").write_text(json.dumps(known))

    quiet(wanted, resume=True)

    assert (path / "model.safetensors").read_bytes() == expected
    assert "curriculum_pacing" in json.loads((path / "run.json").read_text())["recipe"]
    # What was not the default is still another run.
    del known["recipe"]["batch_size"]
    (path / "run.json").write_text(json.dumps(known))
    with pytest.raises(ConfigError, match="batch_size: 16 there, 2 here"):
        quiet(wanted, resume=True)


def test_two_processes_cannot_share_a_directory_even_without_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnima.training.rundir import RunDirectory

    monkeypatch.setitem(sys.modules, "fcntl", None)
    directory = RunDirectory(tmp_path)
    directory.claim({}, {})
    directory.check_identity("never remembered", {"a": 1})
    directory.release()
    assert json.loads((tmp_path / "run.json").read_text()) == {"recipe": {}}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("steps", "1e3", 1000),
        ("steps", "12345678901234567", 12345678901234567),
        ("steps", 5.0, 5),
        ("steps", "none", None),
        ("lr", 1, 1.0),
        ("sample_prompt", 5, "5"),
    ],
)
def test_values_are_read_as_their_field(name: str, value: object, read: object) -> None:
    assert read_value(fields_of(TrainConfig)[name], value, "--set") == read


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", True, "a whole number"),
        ("steps", "inf", "a whole number"),
        ("lr", False, "a number"),
        ("lr", None, "lr needs a value"),
        ("schedule", ["a"], "text is expected"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_value(fields_of(TrainConfig)[name], value, "--set")


def test_every_kind_of_value_is_read_or_refused() -> None:
    import dataclasses

    from omnima.training.schema import option

    @dataclasses.dataclass
    class Options:
        flag: bool = option(False, "a switch")
        names: tuple[str, ...] = option((), "some names")
        table: dict[str, int] = option({}, "a table")
        plain: int = 0

    fields = fields_of(Options)
    assert set(fields) == {"flag", "names", "table"}
    assert read_value(fields["flag"], "Yes", "x") is True
    assert read_value(fields["flag"], False, "x") is False
    assert read_value(fields["names"], 3, "x") == ("3",)
    assert read_value(fields["names"], ["a", "b"], "x") == ("a", "b")
    assert read_value(fields["table"], {1: 2}, "x") == {"1": 2}
    for name, value in (("flag", "maybe"), ("names", {"a": 1}), ("table", "a")):
        with pytest.raises(ConfigError, match=name):
            read_value(fields[name], value, "x")
    check_bounds(Options())
    with pytest.raises(ConfigError, match="flag is 1"):
        check_bounds(Options(flag=1))  # type: ignore[arg-type]
