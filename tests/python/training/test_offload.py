"""An optimizer's state in a file: the same numbers, interchangeable checkpoints, nothing left
behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omnima._device import check_offload
from omnima.cli.plan import _facts
from omnima.errors import ConfigError
from omnima.planning import Calibration, Job, Machine, plan
from omnima.training import TrainConfig
from omnima.training.budget import Budget
from omnima.training.display import Display
from omnima.training.stepper import step_options

from .runs import MODEL, quiet, recipe, write_story

# More than a slice in the one matrix that takes most of it.
WIDE = {**MODEL, "hidden_size": 64, "intermediate_size": 6000}


@pytest.fixture(name="text")
def _text(tmp_path: Path) -> Path:
    return write_story(tmp_path / "story.txt")


def saved(out: Path) -> tuple[bytes, bytes]:
    """The weights, and the optimizer's state of the last checkpoint."""
    last = max(out.glob("checkpoints/step-*"), key=lambda each: int(each.name.split("-")[1]))
    return (out / "model.safetensors").read_bytes(), (last / "optimizer.safetensors").read_bytes()


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "adamw"},
        {"optimizer": "schedule_free_adamw", "schedule": "constant", "precision": "bf16"},
    ],
    ids=lambda more: str(more["optimizer"]),
)
def test_a_state_in_a_file_changes_no_bit_and_can_be_taken_up_again_elsewhere(
    tmp_path: Path, text: Path, more: dict[str, object]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    wanted = {"model": WIDE, "steps": 4, "eval_every": 4, "save_every": 2, **more}
    away = {**wanted, "offload_optimizer": str(disk)}
    quiet(recipe(tmp_path / "plain", text, **wanted))
    quiet(recipe(tmp_path / "away", text, **away))
    straight = saved(tmp_path / "plain")
    assert saved(tmp_path / "away") == straight
    for name, first, then in (("back", away, wanted), ("out", wanted, away)):
        quiet(recipe(tmp_path / name, text, **first), stop_after=2)
        quiet(recipe(tmp_path / name, text, **then), resume=True)
        assert saved(tmp_path / name) == straight
    assert not list(disk.iterdir())


def test_the_runs_own_directory_will_do(tmp_path: Path, text: Path) -> None:
    out = tmp_path / "run"
    run = quiet(recipe(out, text, steps=2, offload_optimizer=str(out)))
    assert run.summary["steps"] == 2
    assert not [each for each in out.rglob("*") if "scratch" in each.name]


KILLED = """
import sys, time
from omnima import _core
from omnima.config import model_preset
options = _core.StepOptions()
options.offload_optimizer = sys.argv[1]
step = _core.TrainStep(_core.Decoder(model_preset("1m", vocab_size=256).core(), 0), options)
step.apply_gradient(step.state()["weights"] * 0.1)
print(step.step, flush=True)
time.sleep(60)
"""


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_told_before_the_first_step(tmp_path: Path, text: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    out, large = tmp_path / "run", {**WIDE, "intermediate_size": 16000}
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot take a file of \d+ MiB: File too large"):
            quiet(recipe(out, text, model=large, steps=2, offload_optimizer=str(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (out / "metrics.jsonl").exists()


def test_places_that_make_no_sense_are_refused(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="which is for a GPU"):
        quiet(recipe(tmp_path / "a", text, offload_optimizer="cpu"))
    with pytest.raises(ConfigError, match="expected none, cpu or an existing directory"):
        quiet(recipe(tmp_path / "b", text, offload_optimizer=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="too little to be offloaded"):
        TrainConfig(steps=1, optimizer="adafactor", offload_optimizer=str(tmp_path))
    check_offload("cpu", "cuda:1")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="is not writable"):
        check_offload(str(tmp_path), "cpu")


@pytest.mark.parametrize("wrong", ["", "nowhere", "cpu"])
def test_a_script_is_refused_the_same_places(tmp_path: Path, wrong: str) -> None:
    from omnima import Model, Tokenizer
    from omnima.training import Trainer

    tokenizer = Tokenizer.train(["The cats saw the dogs."], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    values = {"steps": 1, "context": 16, "samples": 0, "offload_optimizer": wrong}
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=f"offload_optimizer is '{wrong}'"):
        Trainer(model, tokenizer, "tinyworld:10KB", {**values, "out": str(out)}).fit()
    assert not (out / "data").exists()
    # The run's own directory, which `fit` makes.
    own = {**values, "offload_optimizer": str(out), "out": str(out)}
    silent = Display(silent=True)
    Trainer(model, tokenizer, "tinyworld:10KB", own, display=silent).fit()
    assert (out / "model.safetensors").exists()


def test_none_may_be_said_and_is_no_part_of_a_runs_identity(tmp_path: Path, text: Path) -> None:
    plain = TrainConfig(steps=1, offload_optimizer="none")
    assert plain.offload_optimizer is None
    assert recipe(tmp_path, text, offload_optimizer="none").train.offload_optimizer is None
    assert "offload_optimizer" not in TrainConfig(steps=1, offload_optimizer="x").identity()
    assert step_options(plain, "fp32", Budget(1), None).offload_optimizer == ""


def test_a_plan_says_where_the_state_goes() -> None:
    from omnima.config import model_preset

    model = model_preset("125m", vocab_size=50304)
    here = Machine("here", 2, 16 << 30, rates={"fp32": 100.0}, bandwidth=20.0)
    for place, said in (("/fast", "to /fast"), ("cpu", "to the machine's memory")):
        job = Job(model, rows=1, context=64, offload=place)
        told = _facts(plan(job, here=here, calibration=Calibration(0.5, 0.1, 0.2, 1e9)))
        assert said in told["optimizer offloaded"]
