"""Keys and values in bfloat16 and in 8 bits: near the exact numbers, and only where asked for."""

from __future__ import annotations

import pytest
import torch

from omnima.errors import ConfigError
from omnima.generation import generate

from . import models

HEAD_DIM = models.BASE["hidden_size"] // models.BASE["num_attention_heads"]
IDS = [(31 * i + 7) % 97 for i in range(80)]
GREEDY = {"temperature": 0.0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def model():
    return models.Model()


def rounding(precision, head_dim):
    """How far a head's vector moves, as a share of its length: 2^-8 of each number, or half a step
    of the largest, which is at most the length.
    """
    return 2**-8 if precision == "bf16" else head_dim**0.5 / 254


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_logits_are_near_the_exact_ones(model, precision):
    exact = model.engine.logits(IDS, True)
    rounded = model.engine.logits(IDS, True, cache_precision=precision)
    assert not torch.equal(exact, rounded)
    # Values and keys of each layer are rounded.
    most = 2 * models.BASE["num_hidden_layers"] * rounding(precision, HEAD_DIM)
    assert (rounded - exact).norm() < most * exact.norm()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_text_is_the_same_alone_and_with_guesses(model, precision):
    prompts = [IDS[:5], IDS[:40], [1, 2, 3] * 6]
    together = generate(model, None, prompts, cache_precision=precision, **GREEDY)
    guessed = generate(
        model, None, prompts, cache_precision=precision, speculation="lookup", **GREEDY
    )
    assert [each.ids for each in guessed] == [each.ids for each in together]
    for prompt, found in zip(prompts, together, strict=True):
        alone = generate(model, None, [prompt], cache_precision=precision, **GREEDY)
        assert alone[0].ids == found.ids


def test_float32_is_the_default(model):
    plain = generate(model, None, [IDS], **GREEDY)
    exact = generate(model, None, [IDS], cache_precision="fp32", **GREEDY)
    assert plain[0].ids == exact[0].ids
    assert torch.equal(
        model.engine.logits(IDS, True), model.engine.logits(IDS, True, cache_precision="fp32")
    )


def test_an_unknown_precision_is_named(model):
    with pytest.raises(ConfigError, match="cache_precision"):
        generate(model, None, [IDS], cache_precision="fp8")
    with pytest.raises(ConfigError, match=r'cache_precision is "fp8".*fp32, bf16 and int8'):
        model.engine.logits(IDS, cache_precision="fp8")
