"""Runs of mixtures of experts: recorded, resumed exactly, written with, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import omnima
from omnima.errors import ConfigError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.verify import verify_resume

EXPERTS = {"num_experts": 4, "moe_intermediate_size": 24, "expert_capacity": 1.25}


def run(recipe: Recipe, **how: Any) -> Path:
    return train(recipe, display=Display(silent=True), **how).path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_records_its_routers_resumes_exactly_and_writes(
    precision: str, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    model = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        **EXPERTS,
    }
    recipe = small(model=model, precision=precision, accumulate=2, checkpoint_layers="1")
    path = run(recipe)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "balance_loss" in line]
    assert steps and all(line["balance_loss"] > 1.5 for line in steps)
    assert all(0 < line["router_z_loss"] < 9 for line in steps)
    written = omnima.Model.from_pretrained(path)
    assert written.config.num_experts == 4 and written.config.expert_capacity == 1.25
    assert written.num_active_parameters < written.num_parameters
    assert len(written.generate("The ", max_new_tokens=5).ids) > 0
    assert verify_resume(recipe, Display(silent=True))["identical"]


def test_set_reaches_every_field_of_experts() -> None:
    from omnima.config import ModelConfig

    changed = {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 20,
        "shared_expert_intermediate_size": 12,
        "decoder_sparse_step": 2,
        "norm_topk_prob": False,
        "expert_capacity": 1.5,
        "router_aux_loss_coef": 0.02,
        "router_z_loss_coef": 0.01,
    }
    words = [f"{name}={str(value).lower()}" for name, value in changed.items()]
    found = Recipe.from_layers({"steps": 1, "data": ["tinyworld"]}, sets=words)
    assert {name: found.model[name] for name in changed} == changed
    shape = ModelConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, **found.model,
    )  # fmt: skip
    assert shape.expert_layers == 1


def test_experts_without_sense_are_refused(small: Callable[..., Recipe]) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    recipe = small(model={**shape, "max_position_embeddings": 32, "num_experts": 1})
    with pytest.raises(ConfigError, match="has no choice"):
        run(recipe)
