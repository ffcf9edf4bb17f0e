"""What an update takes is measured with the job's own optimizer, where its state will lie."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from omnima import _core
from omnima.config import ModelConfig, model_preset
from omnima.errors import ConfigError, NonFiniteError
from omnima.planning import Job, Machine, calibrate, plan, this_machine
from omnima.planning import calibration as calibrating
from omnima.planning import update_time as module

SMALL = Job(model_preset("nima", vocab_size=256), rows=2, context=32, precision="bf16")
LARGE = Job(model_preset("125m", vocab_size=50257), rows=1, context=128)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "muon", "adamw_8bit", "schedule_free_adamw", "adafactor"]
)
def test_every_optimizer_is_measured_and_the_weights_stay(optimizer: str) -> None:
    import torch

    decoder = _core.Decoder(SMALL.model.core(), 3)
    before = [each.detach().clone() for _, each in decoder.named_parameters()]
    job = dataclasses.replace(SMALL, optimizer=optimizer)
    assert 0 < module.update_seconds(job, decoder) < 10
    now = [each.detach() for _, each in decoder.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


def test_a_gradient_that_is_not_finite_does_not_stop_the_plan() -> None:
    import torch

    decoder = _core.Decoder(SMALL.model.core(), 3)
    step = _core.TrainStep(decoder, _core.StepOptions())
    with contextlib.suppress(NonFiniteError):
        step.apply_gradient(torch.full((SMALL.model.num_parameters,), float("nan")))
    with pytest.raises(NonFiniteError):
        step.time_update(1)
    assert 0 < module.update_seconds(SMALL, decoder) < 10


def test_a_state_in_files_is_measured_there_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(SMALL, offload=str(tmp_path), ema=True)
    assert module.update_seconds(job) > 0
    assert not list(tmp_path.iterdir())

    def stopped(step: Any, repeats: int) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(_core.TrainStep, "time_update", stopped)
    with pytest.raises(KeyboardInterrupt):
        module.update_seconds(job)
    assert not list(tmp_path.iterdir())


def test_the_update_of_a_large_model_follows_from_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []

    def by_size(job: Job, model: ModelConfig, optimizer: str, decoder: Any = None) -> float:
        measured.append((model.num_parameters, optimizer))
        return model.num_parameters * (5e-9 if optimizer == "muon" else 1e-9)

    monkeypatch.setattr(module, "_measured", by_size)
    count = LARGE.model.num_parameters
    assert module.update_seconds(LARGE) == pytest.approx(count * 1e-9)
    assert measured[0][0] < 32 << 20
    muon = module.update_seconds(dataclasses.replace(LARGE, optimizer="muon"))
    inside = count - LARGE.model.parameter_parts["embedding"]
    # Twelve times a block, each with a small vocabulary of its own.
    assert muon == pytest.approx(inside * 5e-9 + (count - inside) * 1e-9, rel=0.1)
    assert [name for _, name in measured] == ["adamw", "adamw", "muon"]


def test_a_directory_that_cannot_take_the_state_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = this_machine()
    with pytest.raises(ConfigError, match="expected none, cpu or an existing directory"):
        calibrate(dataclasses.replace(SMALL, offload=str(tmp_path / "nowhere")), here)
    job = dataclasses.replace(LARGE, offload=str(tmp_path))
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=900 << 20))
    with pytest.raises(ConfigError, match=r"900 MiB are free, but .* state takes 9\d\d MiB"):
        calibrate(job, here)
    module.require_room(dataclasses.replace(job, offload=None), "cpu")
    module.require_room(dataclasses.replace(job, offload="cpu"), "cuda")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="is not writable"):
        calibrate(job, here)


def test_a_full_disk_is_told_by_the_scratch_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot take a file of"):
            module.update_seconds(dataclasses.replace(SMALL, offload=str(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_the_update_is_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "update_seconds", lambda job, decoder: 7.0)
    assert 7.0 < calibrate(SMALL, this_machine()).fixed_seconds < 8.0


def test_another_machines_disk_is_not_looked_for_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"fp32": 100.0, "bf16": 200.0}
    here = dataclasses.replace(this_machine(), rates=rates, bandwidth=20.0)
    there = Machine("there", 2, 16 << 30, rates=rates, bandwidth=20.0)
    job = dataclasses.replace(SMALL, offload="/no/such/place")
    assert plan(job, there, here=here).offloaded_to == "/no/such/place"
    with pytest.raises(ConfigError, match="/no/such/place"):
        plan(job, here=here)


@pytest.mark.parametrize("wanted, size", [(1 << 20, 8), (600 << 20, 100), (9 << 30, 256)])
def test_writing_is_measured_on_a_sample_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, size: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(os.fstat(file).st_size))
    assert calibrating._save_bytes_per_s(tmp_path, wanted) > 0
    assert seen == [size << 20] and not list(tmp_path.iterdir())


def test_a_large_model_is_measured_whole_where_that_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Timed:
        seconds = 0.01

        def time_pass(self, *_: Any) -> float:
            return self.seconds

    monkeypatch.setattr(calibrating, "_decoder", lambda *_: None)
    monkeypatch.setattr(calibrating, "_step", lambda *_: (Timed(), None))
    box = Machine("box", 2, 16 << 30)
    assert calibrating._is_quick(LARGE, box, 1)
    assert not calibrating._is_quick(LARGE, dataclasses.replace(box, memory_bytes=1 << 30), 1)
    wide = dataclasses.replace(LARGE, model=model_preset("1b", vocab_size=50257))
    assert not calibrating._is_quick(wide, dataclasses.replace(box, memory_bytes=1 << 40), 1)
    Timed.seconds = 2.0
    assert not calibrating._is_quick(LARGE, box, 1)
