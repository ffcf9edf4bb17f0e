"""A run knows before what it needs, refuses what cannot fit, keeps how far it was off, and goes on
with smaller micro-batches when memory runs out."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import ConfigError, OmnimaError
from omnima.training import TrainConfig, foresight
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.shortage import divided, is_shortage
from omnima.training.stepper import Stepper

MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("".join(f"The {n % 7} cats saw {n % 5} dogs.\n\n" for n in range(400)))
    return path


def recipe(out: Path, text: Path, **changes: Any) -> Recipe:
    values = {
        "data": [str(text)],
        "model": {**MODEL, "max_position_embeddings": 32},
        "tokenizer": "byte",
        "batch_size": 4,
        "steps": 6,
        "precision": "fp32",
        "samples": 0,
        "eval_batches": 1,
        "out": str(out),
        **changes,
    }
    return Recipe.from_layers(values)


class Notes(Display):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_run_keeps_prediction_and_errors_and_info_shows_them(tmp_path: Path, text: Path) -> None:
    from omnima.evaluation.inventory import describe_directory

    notes = Notes()
    run = train(recipe(tmp_path / "run", text), display=notes)
    assert any(said.startswith("Foresight: ") and "tokens/s" in said for said in notes.said)
    kept = json.loads((tmp_path / "run" / "foresight.json").read_text())
    assert set(kept) == {"predicted", "actual", "errors"}
    assert abs(kept["errors"]["memory"]) < 0.1  # the runtime is most of it
    assert kept["errors"]["time"] > -1.0
    assert kept["actual"]["memory_bytes"] <= run.summary["peak_memory_bytes"]
    told = describe_directory(tmp_path / "run")
    assert told["foresight"] == kept and told["training"]["steps"] == 6
    (tmp_path / "run" / "foresight.json").write_text("{")
    with pytest.raises(OmnimaError, match="damaged"):
        describe_directory(tmp_path / "run")


def test_what_was_predicted_is_compared_by_the_tokens_that_were_trained() -> None:
    from omnima.config import ModelConfig
    from omnima.planning import Calibration, Job, Machine, plan

    job = Job(
        ModelConfig(vocab_size=64, **MODEL, max_position_embeddings=8),
        rows=4,
        context=8,
        seconds=10.0,
    )
    box = Machine("box", 2, 1 << 30)
    made = plan(job, here=box, calibration=Calibration(0.1, 0.0, 0.0, 1e9))
    seen = foresight.Foresight(made, job, 0, TrainConfig(steps=1)).compare(
        3200, 12.5, made.memory_bytes // 2
    )
    assert seen["errors"] == {"memory": pytest.approx(1.0), "time": pytest.approx(-0.2)}


def test_a_run_that_cannot_fit_is_refused_before_its_model_is_made(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnima.planning.machine.free_memory", lambda: 300 << 20)
    wide = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2}
    wide["max_position_embeddings"] = 32
    with pytest.raises(ConfigError, match=r"needs .* GB of memory .*optimizer.*--preset \w+"):
        train(recipe(tmp_path / "run", text, model=wide, precision="auto"), display=Notes())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_trainer_refuses_too(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnima import Model, Tokenizer
    from omnima.training import Trainer

    tokenizer = Tokenizer.train(["a"], "byte")
    model = Model.from_config(
        {"vocab_size": tokenizer.vocab_size, **MODEL, "max_position_embeddings": 2048}
    )
    config = TrainConfig(steps=1, context=2048, precision="fp32", out=str(tmp_path / "run"))
    monkeypatch.setattr("omnima.planning.machine.free_memory", lambda: 1 << 20)
    with pytest.raises(ConfigError, match="What would fit"):
        Trainer(model, tokenizer, str(text), config, display=Notes()).fit()


def test_epochs_become_steps_and_evaluations_are_counted() -> None:
    from omnima.config import ModelConfig

    model = ModelConfig(vocab_size=64, **MODEL, max_position_embeddings=16)
    config = TrainConfig(epochs=2, batch_size=4, accumulate=2, eval_batches=50)
    job = foresight.job_of(model, config, "fp32", train_tokens=12_800, val_tokens=640)
    assert job.steps == 2 * 12_800 / 16 / 8 and job.evaluations == 10
    assert job.eval_batches == 10 and job.text_bytes == 2 * 12_800
    config = TrainConfig(steps=7, eval_every=3)
    job = foresight.job_of(model, config, "fp32", val_tokens=1)
    assert (job.evaluations, job.seconds) == (3, None)
    job = foresight.job_of(model, TrainConfig(minutes=2), "fp32")
    assert (job.steps, job.seconds, job.evaluations) == (None, 120.0, 0)


# --- memory that runs out -------------------------------------------------------------------------


class ShortOnce:
    """A step that runs out of memory while micro-batches are larger than so many rows."""

    def __init__(self, real: Any, rows: int, error: Exception) -> None:
        self._real, self._rows, self._error = real, rows, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, loader: Any) -> Any:
        result_rows = int(loader.next()[0].shape[0])
        loader.seek(loader.position - 1)
        if result_rows > self._rows and self._real.step >= 2:
            loader.next()  # as the core, which has pulled its batches by then
            raise self._error
        return self._real.run(loader)


def starve(monkeypatch: pytest.MonkeyPatch, rows: int, error: Exception) -> None:
    original = Stepper.__init__

    def begin(self: Stepper, *what: Any) -> None:
        original(self, *what)
        self.step = ShortOnce(self.step, rows, error)

    monkeypatch.setattr(Stepper, "__init__", begin)


SHORTAGES = [
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=["memory", "cpu", "gpu"])
def test_a_shortage_halves_the_micro_batch_and_keeps_the_step(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plain = train(recipe(tmp_path / "plain", text, clip_norm=0), display=Notes())
    starve(monkeypatch, 1, error)
    notes = Notes()
    run = train(recipe(tmp_path / "short", text, clip_norm=0), display=notes)
    said = [each for each in notes.said if each.startswith("Memory ran out at step 3")]
    assert "micro-batches of 2 rows" in said[0] and "1 rows" in said[1]
    assert all("stays one of 4 rows" in each for each in said)
    # The same rows in the same order: the same losses but for the order of sums.
    for mine, theirs in zip(run.history, plain.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["tokens"] == theirs["tokens"]


def test_the_rate_counts_what_is_read_not_what_is_asked_for(tmp_path: Path, text: Path) -> None:
    model = {**MODEL, "max_position_embeddings": 32, "causal": False}
    masked = train(recipe(tmp_path, text, model=model, objective="masked"), display=Notes())
    assert masked.summary["tokens"] == 6 * 4 * 32  # of which 15% are targets
    kept = json.loads((tmp_path / "foresight.json").read_text())
    # The seconds are told in thousandths, of which such a run takes a dozen.
    rate = kept["actual"]["tokens_per_s"]
    assert rate == pytest.approx(6 * 4 * 32 / kept["actual"]["seconds"], rel=0.1)


def test_a_resumed_run_goes_on_with_the_smaller_micro_batches(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(place: Path) -> bytes:
        found = latest_checkpoint(place)
        assert found is not None
        return (found.path / "optimizer.safetensors").read_bytes()

    starve(monkeypatch, 2, MemoryError())
    train(recipe(tmp_path / "whole", text), display=Notes())
    train(recipe(tmp_path / "run", text), display=Notes(), stop_after=4)
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    state = json.loads((found.path / "state.json").read_text())
    assert (state["batch_size"], state["accumulate"], state["position"]) == (2, 2, 8)
    notes = Notes()
    train(recipe(tmp_path / "run", text), resume=True, display=notes)
    assert not any("ran out" in said for said in notes.said)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_at_one_row_there_is_nothing_left_to_halve(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starve(monkeypatch, 0, MemoryError())
    with pytest.raises(OmnimaError, match="one row.*omnima plan"):
        train(recipe(tmp_path / "run", text), display=Notes())
    other = RuntimeError("something else")
    starve(monkeypatch, 0, other)
    with pytest.raises(RuntimeError, match="something else"):
        train(recipe(tmp_path / "other", text), display=Notes())


def test_a_step_takes_another_plan_and_keeps_its_state() -> None:
    import torch

    from omnima import _core
    from omnima.config import ModelConfig

    def step(warmup: int) -> Any:
        options = _core.StepOptions()
        options.warmup_steps = warmup
        options.schedule = "constant"
        model = ModelConfig(vocab_size=64, **MODEL, max_position_embeddings=8)
        return _core.TrainStep(_core.Decoder(model.core(), 0), options)

    ids = torch.arange(16).view(2, 8)
    changed, slow = step(0), step(10)
    for each in (changed, slow):
        each.run_batches([(ids, ids)])
    mean = changed.state()["exp_avg"]
    kept = mean.clone()
    changed.replan(warmup_steps=10, accumulate=3)
    assert changed.state()["exp_avg"].data_ptr() == mean.data_ptr() and torch.equal(mean, kept)
    lr = changed.run_batches([(ids, ids)]).lr
    assert lr == slow.run_batches([(ids, ids)]).lr and changed.step == 2
    with pytest.raises(ConfigError, match="accumulate"):
        changed.replan(warmup_steps=10, accumulate=0)


def test_odd_micro_batches_are_divided_by_their_smallest_factor() -> None:
    config = TrainConfig(steps=1, batch_size=15, accumulate=2)
    shapes = []
    while config.batch_size > 1:
        config, times = divided(config)
        shapes.append((config.batch_size, config.accumulate, times))
    assert shapes == [(5, 6, 3), (1, 30, 5)]
    assert not is_shortage(ValueError("out of memory")) and is_shortage(MemoryError())
    assert dataclasses.replace(config).accumulate == 30


LIMITED = """
import resource, sys
from pathlib import Path
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
import torch

torch.set_num_threads(2)
text, out = sys.argv[1:]

def size():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmSize:")))

class Tight(Display):
    # Once all is made: little more address space than the process has between steps.
    def show(self, state, fraction, left):
        if state["step"] == 1:
            limit = size() + (95 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        if state["step"] == 3:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

    def note(self, text):
        print(text, flush=True)

recipe = Recipe.from_layers({
    "data": [text], "tokenizer": "byte", "batch_size": 2, "steps": 4, "precision": "fp32",
    "samples": 0, "val_fraction": 0.0, "save_every": 1000, "out": out, "context": 2048,
    "model": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
})
train(recipe, display=Tight())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' limits")
def test_a_real_limit_of_the_system_halves_the_micro_batch(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("The cats saw the dogs. " * 4000)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(text), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        # Every large block is the system's to give and to take back: none is kept between steps.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "micro-batches of 1 rows from now on, 2 a step" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 4
