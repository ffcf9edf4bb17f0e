"""What stands in the records beside the losses: the machine, norms by layer, samples."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import Model, _core
from omnima.errors import ConfigError, OmnimaError
from omnima.training.callbacks import Callback
from omnima.training.callbacks.resources import ResourceMonitor
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.records import Records, read_records
from omnima.training.run import Run

Make = Callable[..., Recipe]


def quiet(wanted: Recipe, *callbacks: Any, **how: Any) -> Run:
    return train(wanted, display=Display(silent=True), callbacks=callbacks, **how)


def test_everything_on_changes_no_byte(small: Make, tmp_path: Path) -> None:
    plain = quiet(small(out=str(tmp_path / "plain"), alerts="off", monitor_every=0))
    full = quiet(
        small(
            out=str(tmp_path / "full"), norms_every=1, samples_every=2, sample_tokens=4, log_every=3
        )
    )
    name = "model.safetensors"
    assert (plain.path / name).read_bytes() == (full.path / name).read_bytes()
    assert not any("cpu_percent" in each for each in plain.history)
    assert all("norms" in each for each in full.history) and len(full.history) == 8


def test_norms_are_those_of_the_weights(small: Make) -> None:
    class Keeps(Callback):
        """Computes by torch, parameter by parameter, what the core computes in one call."""

        def __init__(self) -> None:
            self.before: dict[str, torch.Tensor] = {}
            self.expected: list[dict[str, dict[str, float]]] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            parameters = facts["model"].core.named_parameters()
            self.before = {name: each.detach().clone() for name, each in parameters}

        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            sums: dict[str, dict[str, float]] = {}
            for name, each in facts["model"].core.named_parameters():
                parts = name.removeprefix("model.").split(".")
                layer = ".".join(parts[:2]) if parts[0] == "layers" else parts[0]
                now = each.detach().double()
                entry = sums.setdefault(layer, {"weight": 0.0, "update": 0.0})
                entry["weight"] += float(now.square().sum())
                entry["update"] += float((now - self.before[name].double()).square().sum())
            self.expected.append(sums)

    keeps = Keeps()
    run = quiet(small(norms_every=1), keeps)
    for record, expected in zip(run.history, keeps.expected, strict=True):
        norms = record["norms"]
        assert list(norms) == ["embed_tokens", "layers.0", "layers.1", "norm"] or set(norms) == set(
            expected
        )
        for layer, sums in expected.items():
            assert norms[layer]["weight"] == pytest.approx(math.sqrt(sums["weight"]), rel=1e-5)
            assert norms[layer]["update"] == pytest.approx(math.sqrt(sums["update"]), rel=1e-4)
        whole = math.sqrt(sum(each["gradient"] ** 2 for each in norms.values()))
        assert whole == pytest.approx(record["grad_norm"], rel=1e-5)


def test_norms_need_a_step_between() -> None:
    model = Model.from_preset("nima", vocab_size=64)
    with pytest.raises(OmnimaError, match=r"call before\(\), then the step, then after\(\)"):
        _core.LayerNorms(model.core).after()


def test_samples_come_on_the_way_and_are_repeated_by_a_resumed_run(small: Make) -> None:
    heard: list[tuple[int, tuple[str, ...]]] = []

    class Hears(Callback):
        def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            heard.append((state.global_step, facts["samples"]))
            assert facts["path"].read_text(encoding="utf-8").startswith(facts["samples"][0])

    wanted = small(samples_every=3, samples=2, sample_tokens=5, sample_prompt="The", save_every=3)
    run = quiet(wanted, Hears(), stop_after=4)
    names = sorted(each.name for each in (run.path / "samples").iterdir())
    assert names == ["step-00000003.txt"]
    quiet(wanted, Hears(), resume=True)
    assert [step for step, _ in heard] == [3, 6]
    assert all(len(texts) == 2 and texts[0].startswith("The") for _, texts in heard)


def test_a_prompt_too_long_for_samples_is_refused(small: Make) -> None:
    with pytest.raises(ConfigError, match="samples_every=0"):
        quiet(small(samples_every=2, sample_prompt="a" * 40))


def test_the_machine_is_read_now_and_then() -> None:
    monitor = ResourceMonitor(0.2)
    first = monitor.read()
    held = torch.ones(50_000_000)  # more than an allocator keeps at hand: new memory
    limit = time.process_time() + 0.25
    while time.process_time() < limit:
        pass
    second = monitor.read()
    assert monitor.read() == {}
    assert second["cpu_percent"] > 20
    assert second["memory_bytes"] > first["memory_bytes"] + held.nbytes // 2
    assert 0 < second["memory_free_bytes"]
    assert ResourceMonitor(0).read() == {}


def test_a_gpu_is_read_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 100))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 60)
    monkeypatch.setattr(torch.cuda, "utilization", missing)
    told: list[str] = []
    monitor = ResourceMonitor(1e-9, told.append)
    facts = monitor.read()
    assert facts["gpu_memory_bytes"] == 70 and facts["gpu_memory_peak_bytes"] == 60
    assert facts["gpu_percent"] is None and monitor.read()["gpu_percent"] is None
    assert len(told) == 1 and "pynvml" in told[0] and "pip install nvidia-ml-py" in told[0]
    assert ResourceMonitor(1).read()["gpu_percent"] is None  # nobody to tell
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 87)
    assert ResourceMonitor(1).read()["gpu_percent"] == 87


def test_records_hold_readings(small: Make) -> None:
    run = quiet(small())
    assert run.history[0]["memory_bytes"] > 1_000_000
    assert Run.load(run.path).history == run.history


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    records = Records(tmp_path / "a.jsonl")
    records.add({"step": 1, "norms": {"layers.0": {"weight": math.inf}}})
    records.close()
    assert read_records(tmp_path / "a.jsonl") == [
        {"step": 1, "norms": {"layers.0": {"weight": None}}}
    ]
    json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
