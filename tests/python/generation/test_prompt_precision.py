"""Prompts read in bfloat16: near the exact numbers, and only where it is asked for."""

from __future__ import annotations

import pytest
import torch

from omnima.errors import ConfigError
from omnima.generation import generate

from . import models

IDS = [(31 * i + 7) % 97 for i in range(80)]


@pytest.fixture(scope="module")
def model():
    return models.Model()


def test_logits_are_near_the_exact_ones(model):
    exact, rounded = model.engine.logits(IDS), model.engine.logits(IDS, bf16_prompts=True)
    assert not torch.equal(exact, rounded)
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_float32_is_the_default_and_short_prompts_stay_exact(model):
    options = {"temperature": 0.0, "max_new_tokens": 8}
    plain = generate(model, None, [IDS[:20], IDS], **options)
    exact = generate(model, None, [IDS[:20], IDS], prompt_precision="fp32", **options)
    rounded = generate(model, None, [IDS[:20], IDS], prompt_precision="bf16", **options)
    assert [each.ids for each in plain] == [each.ids for each in exact]
    assert rounded[0].ids == plain[0].ids and len(rounded[1].ids) == 8


def test_an_unknown_precision_is_named(model):
    with pytest.raises(ConfigError, match="prompt_precision"):
        generate(model, None, [IDS], prompt_precision="fp8")
