"""The options of a run, through whole small runs: resumed exactly, refused clearly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import omnima.training.loop
from omnima.errors import ConfigError
from omnima.evaluation import Score
from omnima.hub import load_pretrained
from omnima.training import TrainConfig
from omnima.training.budget import Budget
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.config import OPTIMIZERS, SCHEDULES
from omnima.training.display import Display
from omnima.training.early_stop import EarlyStop
from omnima.training.lr_finder import find_lr, sentence
from omnima.training.recipe import Recipe

from .runs import MODEL, quiet, write_story
from .runs import recipe as longer


def recipe(out: Path, text: Path, /, **changes: object) -> Recipe:
    return longer(out, text, **{"steps": 6, **changes})


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("text") / "stories.txt")


def saved(path: Path) -> tuple[bytes, bytes, bytes]:
    found = latest_checkpoint(path)
    assert found is not None
    return (
        (path / "model.safetensors").read_bytes(),
        (found.path / "model" / "model.safetensors").read_bytes(),
        (found.path / "optimizer.safetensors").read_bytes(),
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_resumes_exactly(tmp_path: Path, text: Path, optimizer: str) -> None:
    averages = optimizer == "schedule_free_adamw"
    changes = {
        "optimizer": optimizer,
        "schedule": "constant" if averages else "warmup_stable_decay",
        "ema_decay": 0.0 if averages else 0.9,
        "clip_value": 0.01,
        "clip_adaptive": 0.05,
        "accumulate": 2,
        "ramp_steps": 4,
        "groups": ["*embed*:lr=0.5,weight_decay=0"],
        "freeze": ["*norm*@2-4"],
    }
    quiet(recipe(tmp_path / "whole", text, **changes))
    wanted = recipe(tmp_path / "half", text, **changes)
    quiet(wanted, stop_after=3)
    quiet(wanted, resume=True)
    assert saved(tmp_path / "half") == saved(tmp_path / "whole")


def test_a_budget_on_the_clock_keeps_the_average_when_it_is_planned(
    tmp_path: Path, text: Path
) -> None:
    run = quiet(recipe(tmp_path / "run", text, steps=None, minutes=0.02, ema_decay=0.9))
    assert run.summary["steps"] > 6


def test_the_running_mean_is_what_is_saved(tmp_path: Path, text: Path) -> None:
    from omnima import _core

    quiet(recipe(tmp_path / "mean", text, ema_decay=0.9))
    quiet(recipe(tmp_path / "own", text, ema_decay=0.9, ema_eval=False))
    quiet(recipe(tmp_path / "plain", text))
    weights = {name: load_pretrained(tmp_path / name)[1] for name in ("mean", "own", "plain")}
    assert all(torch.equal(weights["own"][key], weights["plain"][key]) for key in weights["own"])
    assert any(not torch.equal(weights["mean"][key], weights["own"][key]) for key in weights["own"])
    found = latest_checkpoint(tmp_path / "own")
    assert found is not None
    ema = _core.read_safetensors(str(found.path / "optimizer.safetensors"))["ema"]
    assert abs(sum(float(each.sum()) for each in weights["mean"].values()) - float(ema.sum())) < 0.1


def test_a_run_stops_early_and_a_resumed_one_knows(tmp_path: Path, text: Path) -> None:
    changes = {"lr": 0.0, "steps": 50, "eval_every": 2, "patience": 3}
    run = quiet(recipe(tmp_path / "run", text, **changes))
    assert run.summary["steps"] == 8  # the first evaluation, then three that are no better
    wanted = recipe(tmp_path / "again", text, **changes)
    quiet(wanted, stop_after=5)
    assert quiet(wanted, resume=True).summary["steps"] == 8


def test_patience_needs_text_that_is_held_out() -> None:
    with pytest.raises(ConfigError, match="no text is held out"):
        EarlyStop.of(TrainConfig(steps=1, patience=2), 0)
    never = EarlyStop.of(TrainConfig(steps=1), 0)
    for loss in (1.0, 2.0, 3.0):
        never.take_in(loss)
    assert not never.reached
    never.load(None)
    assert never.values() == {"best": 1.0, "waited": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "schedule_free_adamw"}, "give schedule constant"),
        (
            {"optimizer": "schedule_free_adamw", "schedule": "constant", "ema_decay": 0.9},
            "leave ema_decay at 0",
        ),
        ({"schedule": "one_cycle", "warmup": 5}, "set rise_share"),
        ({"ramp_steps": 5}, "needs accumulate above 1"),
        ({"optimizer": "moun"}, "must be one of adamw"),
        ({"groups": "*:lr=1"}, "a list of texts"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_values({"steps": 10, **values})


def test_a_pattern_that_names_nothing_is_refused_before_the_first_step(
    tmp_path: Path, text: Path
) -> None:
    with pytest.raises(ConfigError, match=r"No parameter has a name like .*nearest"):
        quiet(recipe(tmp_path / "run", text, freeze=["model.embed_token.weight"]))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_flags_sets_and_yaml_say_the_same(tmp_path: Path) -> None:
    values = {
        "optimizer": "muon",
        "schedule": "cosine_restarts",
        "cycles": 2,
        "momentum": 0.9,
        "nesterov": False,
        "clip_value": 0.5,
        "ema_decay": 0.99,
        "patience": 3,
    }
    least = {"data": ["tinyworld"], "preset": "1m", "steps": 10}
    lists = {"groups": ["*embed*:lr=0.5"], "freeze": ["*norm*@1-5"]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**least, **values, **lists}))
    by_yaml = Recipe.from_layers({}, [], path)
    sets = [f"{key}={value}" for key, value in values.items()]
    sets += [f"{key}={value[0]}" for key, value in lists.items()]
    assert Recipe.from_layers(least, sets) == by_yaml
    assert Recipe.from_layers({**least, **values, **lists}) == by_yaml
    assert by_yaml.train.groups == ("*embed*:lr=0.5",)


def test_the_learning_rate_finder_suggests_a_rate_that_learns(tmp_path: Path, text: Path) -> None:
    found = find_lr(recipe(tmp_path / "run", text, lr=0.0), Display(silent=True))
    assert 1e-5 < found.lr < 0.2
    assert found.rates[0] == pytest.approx(1e-6) and len(found.rates) == len(found.losses)
    assert all(b > a for a, b in itertools.pairwise(found.rates))
    assert f"--lr {found.lr:g}" in sentence(found)
    before = quiet(recipe(tmp_path / "none", text, lr=0.0, steps=20)).summary["val_loss"]
    after = quiet(recipe(tmp_path / "some", text, lr=found.lr, steps=20)).summary["val_loss"]
    assert after < before


def test_what_is_on_by_default_can_be_turned_off_by_a_flag() -> None:
    import typer.main

    from omnima.cli.app import app

    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    switches = {each.name: each.secondary_opts for each in command.params}
    assert switches["nesterov"] == ["--no-nesterov"] and switches["ema_eval"] == ["--no-ema-eval"]


def test_one_cycle_has_no_warmup_beside_its_own() -> None:
    assert Budget(1000).warmup(TrainConfig(steps=1000, schedule="one_cycle")) == 0
    assert Budget(1000).warmup(TrainConfig(steps=1000)) == 50


def rates(schedule: str, steps: int, **values: object) -> list[float]:
    from omnima import _core

    options = _core.StepOptions()
    given = {"schedule": schedule, "total_steps": steps, "lr": 0.5, "optimizer": "sgd", **values}
    for name, value in given.items():
        setattr(options, name, value)
    decoder = _core.Decoder(_core.DecoderConfig({**MODEL, "vocab_size": 11}), 1)
    step = _core.TrainStep(decoder, options)
    zeros = torch.zeros(decoder.num_parameters())
    return [step.apply_gradient(zeros).lr for _ in range(steps)]


def by_torch(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules_are_torchs() -> None:
    lr = torch.optim.lr_scheduler
    steps = 60
    restarts = by_torch(
        lambda own: lr.CosineAnnealingWarmRestarts(own, T_0=20, eta_min=0.05), steps
    )
    own = rates("cosine_restarts", steps, cycles=3, min_lr_ratio=0.1)
    assert own == pytest.approx(restarts, abs=1e-9)
    stages = by_torch(lambda own: lr.StepLR(own, step_size=20, gamma=0.3), steps)
    assert rates("step", steps, stages=3, stage_factor=0.3) == pytest.approx(stages, abs=1e-9)
    cosine = by_torch(lambda own: lr.CosineAnnealingLR(own, T_max=steps, eta_min=0.05), steps)
    assert rates("cosine", steps, min_lr_ratio=0.1) == pytest.approx(cosine, abs=1e-9)


def test_every_schedule_runs(tmp_path: Path, text: Path) -> None:
    for schedule, warmup in itertools.product(SCHEDULES, (None, 2)):
        if schedule == "one_cycle" and warmup:
            continue
        found = rates(schedule, 30, warmup_steps=warmup or 0)
        assert all(0 <= each <= 0.5 + 1e-9 for each in found) and max(found) > 0.3


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_a_run_ends_with_the_best_checkpoint(
    tmp_path: Path, text: Path, ema_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def best_at_two(step: Any, *ignored: object) -> Score:
        return Score(1.0 + abs(step.step - 2), 1, 1.0)

    monkeypatch.setattr(omnima.training.loop, "score", best_at_two)
    changes = {"eval_every": 1, "keep_last": 6}
    run = quiet(recipe(out, text, restore_best=True, ema_decay=ema_decay, **changes))
    assert (run.summary["steps"], run.summary["best_step"]) == (6, 2)
    assert run.summary["val_loss"] == 1.0
    last = load_pretrained(out / "checkpoints" / "step-00000006" / "model")[1]
    assert not torch.equal(last["model.norm.weight"], load_pretrained(out)[1]["model.norm.weight"])
    saved_there = load_pretrained(out / "checkpoints" / "step-00000002" / "model")[1]
    for name, weight in load_pretrained(out)[1].items():
        assert torch.equal(weight, saved_there[name]), name


def test_a_best_checkpoint_that_is_the_last_stays(tmp_path: Path, text: Path) -> None:
    run = quiet(recipe(tmp_path / "run", text, restore_best=True, eval_every=6))
    assert run.summary["best_step"] == run.summary["steps"] == 6


def test_the_best_checkpoint_needs_text_held_out_and_a_place() -> None:
    with pytest.raises(ConfigError, match="restore_best is asked for, but no text is held out"):
        EarlyStop.of(TrainConfig(steps=1, restore_best=True), 0)
    with pytest.raises(ConfigError, match="keep_best is 0"):
        TrainConfig(steps=1, restore_best=True, keep_best=0)
