"""A memory budget and a target batch choose what they leave open, say so, and stay in a resumed
run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.config import ModelConfig, model_preset
from omnima.errors import ConfigError
from omnima.planning import Machine, needed_bytes
from omnima.training import TrainConfig
from omnima.training.foresight import job_of, job_of_recipe, recipe_to_plan, require_memory
from omnima.training.memory_choice import MemoryChoice, choose
from omnima.training.recipe import Recipe
from omnima.training.trainer import Trainer

from .runs import quiet
from .test_foresight import Notes

BOX = Machine("box", threads=2, memory_bytes=8 << 30, runtime_bytes=200 << 20)
GPU = dataclasses.replace(BOX, device="cuda", runtime_bytes=0)
MODEL = model_preset("10m", vocab_size=2048)


def found(machine: Machine, model: ModelConfig = MODEL, **changes: Any) -> MemoryChoice | None:
    config = TrainConfig(steps=10, **changes)
    return choose(config, lambda wanted: job_of(model, wanted, "fp32"), machine)


def taken(machine: Machine, **changes: Any) -> int:
    return needed_bytes(job_of(MODEL, TrainConfig(steps=10, **changes), "fp32"), machine)


def test_nothing_is_chosen_where_nothing_is_left_open() -> None:
    assert found(BOX) is None


def test_as_few_blocks_as_possible_compute_twice() -> None:
    layers = MODEL.num_hidden_layers
    for wanted in (0, 2, layers):
        budget = taken(GPU, checkpoint_layers=wanted)
        choice = found(GPU, memory_budget=str(budget))
        assert choice is not None and choice.checkpoint_layers == wanted
        assert choice.needed_bytes == budget == choice.allowed_bytes
    asked = found(GPU, memory_budget="100GB", checkpoint_layers=2)
    assert asked is not None and asked.checkpoint_layers == 2
    assert asked.allowed_bytes == GPU.memory_bytes  # no more than is there
    more = found(GPU, memory_budget="100GB", checkpoint_layers=layers + 1)
    assert more is not None and more.checkpoint_layers == layers


def test_a_budget_that_nothing_fits_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match="compute twice, but it may take 1.0 GB.*--batch-size"):
        found(GPU, memory_budget="1GB", batch_size=512)
    with pytest.raises(ConfigError, match="100 MB"):
        found(BOX, memory_budget="100MB")


def test_the_micro_batch_is_the_largest_that_fits_and_the_rows_are_shared_evenly() -> None:
    context = MODEL.max_position_embeddings
    rows = 8
    whole = 3 * rows - 2
    # The batches that are made ahead count as well, so a row more would not fit.
    budget = taken(GPU, batch_size=rows, accumulate=3)
    choice = found(GPU, memory_budget=str(budget), target_batch_tokens=whole * context)
    assert choice is not None
    assert (choice.batch_size, choice.accumulate, choice.checkpoint_layers) == (8, 3, 0)
    assert choice.needed_bytes <= budget
    alone = found(GPU, target_batch_tokens=4 * context)
    assert alone is not None and (alone.batch_size, alone.accumulate) == (4, 1)
    tiny = found(BOX, target_batch_tokens=1)
    assert tiny is not None and (tiny.batch_size, tiny.accumulate) == (1, 1)


def test_a_ramp_needs_more_than_one_micro_batch() -> None:
    with pytest.raises(ConfigError, match="nothing to ramp"):
        found(BOX, target_batch_tokens=64, ramp_steps=3)
    with pytest.raises(ConfigError, match="accumulate above 1"):
        TrainConfig(steps=10, ramp_steps=3)
    budget = str(taken(GPU, batch_size=1, accumulate=4))
    target = 4 * MODEL.max_position_embeddings
    choice = found(GPU, target_batch_tokens=target, memory_budget=budget, ramp_steps=3)
    assert choice is not None and choice.accumulate > 1
    config = TrainConfig(steps=10, target_batch_tokens=target, memory_budget=budget, ramp_steps=3)
    assert choice.apply(config).ramp_steps == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory_budget": "plenty"}, "such as 2GB"),
        ({"memory_budget": "0"}, "such as 2GB"),
        ({"target_batch_tokens": 64, "batch_size": 4}, "batch_size=4 are both given"),
        ({"target_batch_tokens": 64, "accumulate": 2, "batch_size": 1}, "and accumulate=2 are"),
        ({"target_batch_tokens": 0}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig(steps=1, **changes)


def test_a_run_takes_the_choice_says_it_and_keeps_it_when_resumed(
    small: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = small(batch_size=16, target_batch_tokens=200, memory_budget="20GiB", steps=6)
    notes = Notes()
    straight = _train(wanted, notes)
    kept = json.loads((straight / "run.json").read_text())["memory_choice"]
    assert (kept["batch_size"], kept["accumulate"], kept["context"]) == (6, 1, 32)
    assert any("6 rows a micro-batch, 1 of them a step (192 tokens)" in x for x in notes.said)
    whole = (straight / "model.safetensors").read_bytes()
    assert "rows of a step | 6 x 1" in (straight / "README.md").read_text()

    quiet(wanted, overwrite=True, stop_after=3)
    kept = json.loads((straight / "run.json").read_text())["memory_choice"]

    def otherwise(*_: object) -> None:
        raise AssertionError("a resumed run keeps what was chosen")

    monkeypatch.setattr("omnima.training.memory_choice.choose", otherwise)
    quiet(wanted, resume=True)
    assert (straight / "model.safetensors").read_bytes() == whole
    again = json.loads((straight / "run.json").read_text())["memory_choice"]
    assert again == kept


def _train(wanted: Recipe, notes: Notes) -> Path:
    from omnima.training.launch import train

    return train(wanted, display=notes).path


def test_too_little_memory_is_refused_before_the_model_is_made(
    small: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: pytest.fail("the run began"))
    with pytest.raises(ConfigError, match="it may take 1 MB"):
        quiet(small(memory_budget="1MB"))
    require_memory(MODEL, TrainConfig(steps=1, memory_budget="20GB"))


def test_a_plan_is_of_what_a_run_would_choose() -> None:
    budget = str(taken(GPU, batch_size=4) + (1 << 20))
    flags = {"preset": "10m", "vocab_size": 2048, "precision": "fp32", "batch_size": 4, "steps": 10}
    recipe = recipe_to_plan(flags, [f"memory_budget={budget}"])
    assert job_of_recipe(recipe, machine=GPU).checkpoint_layers == 0
    less = recipe_to_plan(flags, [f"memory_budget={int(budget) * 2 // 3}"])
    assert job_of_recipe(less, machine=GPU).checkpoint_layers > 0
    assert job_of_recipe(less).checkpoint_layers == 0  # no machine, no choice
