"""The training config, its schema, and how flags, --set and YAML become one recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from omnima.errors import ConfigError
from omnima.training import schema
from omnima.training.budget import Budget
from omnima.training.config import TrainConfig
from omnima.training.recipe import Recipe, parse_count
from omnima.training.schema import fields_of

RECIPES = sorted((Path(__file__).parents[3] / "examples" / "recipes").glob("*.yaml"))
LEAST = {"data": ["tinyworld"], "preset": "1m", "steps": 10}


def test_exactly_one_budget():
    with pytest.raises(ConfigError, match="exactly one"):
        TrainConfig()
    with pytest.raises(ConfigError, match=r"steps=3 and minutes=2\.0"):
        TrainConfig(steps=3, minutes=2.0)


def test_what_a_key_is_called_elsewhere_leads_to_ours():
    for key, ours in {"learning_rate": "lr", "warmup_step": "warmup", "max_iters": "steps"}.items():
        with pytest.raises(ConfigError, match=f'"{key}".*nearest is "{ours}"'):
            TrainConfig.from_values({key: 1})
    names = {each.name for each in dataclasses.fields(TrainConfig)}
    assert set(schema._ELSEWHERE.values()) <= names


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match='"batch_sise".*nearest is "batch_size"'):
        TrainConfig.from_values({"steps": 1, "batch_sise": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"batch_size": True}, "a whole number is expected"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"schedule": "cosin"}, "constant, linear, cosine"),
        ({"steps": 10, "warmup": 11}, "would never reach lr"),
        ({"seed": "three"}, "a whole number is expected"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_values({"steps": 100, **values})


def test_every_field_has_a_meaning():
    for config in (TrainConfig, Recipe):
        described = fields_of(config)
        assert all(len(field.meaning) > 8 for field in described.values())
        nested = {"train"} if config is Recipe else set()
        assert {each.name for each in dataclasses.fields(config)} - nested == set(described)


@pytest.mark.parametrize(
    ("text", "count"), [("20M", 20_000_000), ("1.5m", 1_500_000), ("500k", 500_000), ("1b", 10**9)]
)
def test_parameter_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "-3M", "0", "20 Mio", "1e6"])
def test_bad_parameter_counts(text):
    with pytest.raises(ConfigError, match="such as 500k, 20M"):
        parse_count(text)


def test_flags_go_before_sets_before_yaml(tmp_path):
    path = tmp_path / "räzept mit leer.yaml"
    path.write_text("data: tinyworld\npreset: 1m\nsteps: 9\nlr: 1e-2\nseed: 4\n", encoding="utf-8")
    recipe = Recipe.from_layers({"lr": 0.5, "minutes": None}, ["lr=0.1", "seed=5"], path)
    assert (recipe.train.lr, recipe.train.seed, recipe.train.steps) == (0.5, 5, 9)


def test_a_higher_layer_replaces_the_budget_and_the_size(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: [a, b]\npreset: 1m\nsteps: 9\n")
    recipe = Recipe.from_layers({"minutes": 1.5, "params": "2M"}, [], path)
    assert (recipe.train.steps, recipe.train.minutes) == (None, 1.5)
    assert (recipe.preset, recipe.params, recipe.data) == (None, "2M", ("a", "b"))


def test_two_budgets_in_one_layer_are_refused():
    with pytest.raises(ConfigError, match="exactly one"):
        Recipe.from_layers({**LEAST, "minutes": 2.0})


def test_preset_and_params_together_are_refused():
    with pytest.raises(ConfigError, match="drop one"):
        Recipe.from_layers({**LEAST, "params": "2M"})


def test_yaml_flags_and_sets_give_the_same_recipe(tmp_path):
    values = {**LEAST, "lr": 0.004, "context": 64, "packing": "documents", "seed": 3}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    sets = [f"{key}={value}" for key, value in values.items() if key != "data"]
    by_flags = Recipe.from_layers(values)
    assert Recipe.from_layers({}, [], path) == by_flags
    assert Recipe.from_layers({"data": ["tinyworld"]}, sets) == by_flags


def test_a_recipe_survives_its_own_yaml(tmp_path):
    recipe = Recipe.from_layers(LEAST)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(recipe.values()))
    assert Recipe.from_layers({}, [], path) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: [1", "line 1|line 2"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("steps: many\n", "steps is 'many', but a whole number"),
        ("steps: 1.5\n", "a whole number"),
        ("data: {a: 1}\n", "text or a list of texts"),
        ("lr: {a: 1}\n", "a number is expected"),
    ],
)
def test_bad_yaml(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Recipe.from_layers({"preset": "1m"}, [], path)


def test_a_missing_or_binary_recipe_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        Recipe.from_layers({}, [], tmp_path / "nowhere.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"data: caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Recipe.from_layers({}, [], path)


def test_bad_sets():
    with pytest.raises(ConfigError, match="not key=value"):
        Recipe.from_layers(LEAST, ["lr"])
    with pytest.raises(ConfigError, match="lr is 'fast', but a number"):
        Recipe.from_layers(LEAST, ["lr=fast"])


def test_no_text_and_no_size():
    with pytest.raises(ConfigError, match="--data tinyworld"):
        Recipe.from_layers({"preset": "1m", "steps": 1})
    with pytest.raises(ConfigError, match="--params 20M"):
        Recipe.from_layers({"data": ["tinyworld"], "steps": 1})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_loads(path):
    recipe = Recipe.from_layers({}, [], path)
    assert recipe.data and recipe.train.out


def test_there_is_a_recipe():
    assert RECIPES


def test_budgets_in_steps_and_epochs_are_exact():
    assert Budget.of(TrainConfig(steps=7), 3.0).total_steps == 7
    assert Budget.of(TrainConfig(epochs=2.5), 4.0).total_steps == 10
    assert Budget.of(TrainConfig(epochs=0.001), 4.0).total_steps == 1


def test_a_budget_in_minutes_is_planned_from_the_measured_pace():
    config = TrainConfig(minutes=1.0)
    budget = Budget.of(config, 100.0)
    assert budget.warmup(config) == 200
    elapsed, step = 0.0, 0
    while not budget.done(step, elapsed):
        step, elapsed = step + 1, elapsed + 0.5
        budget.replan(step, elapsed, 0.5)
    assert abs(step - 120) <= 1 and elapsed <= 60.5
    assert budget.fraction(step, elapsed) == 1.0
    assert budget.left(step, elapsed) <= 0.5


def test_time_left_of_a_budget_in_steps():
    budget = Budget(10)
    assert budget.left(0, 0.0) is None
    assert budget.left(5, 10.0) == 10.0
    assert budget.replan(5, 10.0, 2.0) is False
