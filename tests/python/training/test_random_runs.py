"""A dozen random configurations from the whole schema; benchmarks/random_runs.py does hundreds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace

import pytest

from omnima.errors import NonFiniteError
from omnima.training.recipe import Recipe

FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "random_runs.py"


@pytest.fixture(scope="module")
def random_runs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("random_runs", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["random_runs"] = module
    spec.loader.exec_module(module)
    return module


def test_every_key_of_the_schema_is_drawn(random_runs: ModuleType) -> None:
    assert set(random_runs.draws()) | random_runs.TOGETHER == set(Recipe.schema())
    assert "layer_drop" in random_runs.model_draws()
    values = {"tokenizer": "byte", "data": ["a"], "model": random_runs.random_model(Random(1))}
    values.update(curriculum_start=0.5, curriculum_steps=2)
    random_runs._repair(values, "steps")
    assert "curriculum_start" not in values and "curriculum_steps" not in values


@pytest.mark.parametrize("number", range(12))
def test_a_random_run_finishes_or_refuses_clearly(random_runs: ModuleType, number: int) -> None:
    told = random_runs.one_run(number)
    assert told["how"] in ("finished", "resumed", "refused"), told


@pytest.mark.parametrize(
    ("raised", "how"),
    [(NonFiniteError("the loss is nan"), "diverged"), (KeyError("lr"), "bug")],
)
def test_what_is_no_clear_end_is_told_apart(
    random_runs: ModuleType, monkeypatch: pytest.MonkeyPatch, raised: Exception, how: str
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(random_runs, "_trained", fail)
    told = random_runs.one_run(0)
    assert told["how"] == how and raised.args[0] in told["what"]


def test_a_silent_nan_is_a_bug(
    random_runs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr("omnima.hub.load_pretrained", lambda _: ({}, {"w": torch.zeros(2)}))
    history = [{"step": 1, "loss": 2.0, "val_loss": None}, {"step": 2, "loss": float("nan")}]
    run = SimpleNamespace(summary={"val_loss": 1.0}, history=history[:1], path=tmp_path)
    assert random_runs.not_finite(run) is None
    run.history = history
    assert random_runs.not_finite(run) == "loss of step 2"
    monkeypatch.setattr("omnima.hub.load_pretrained", lambda _: ({}, {"w": torch.tensor(-1e39)}))
    run.history = []
    assert random_runs.not_finite(run) == "a sum of w"
