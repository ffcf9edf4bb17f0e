"""Activations in bfloat16: near the exact numbers, the same in any batch, refused elsewhere."""

from __future__ import annotations

import pytest

import omnima
from omnima.errors import ConfigError

PROMPTS = [[(31 * i + 7 * j) % 97 for i in range(5 + 3 * j)] for j in range(18)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    omnima.Model.from_preset("nima", vocab_size=97).save_pretrained(place)
    return place


def opened(place, activations):
    return omnima.Model.from_pretrained(place, dtype="bfloat16", activations=activations)


def test_logits_are_near_the_exact_ones(place):
    ids = PROMPTS[-1][:30]
    exact = opened(place, "float32").engine.logits(ids, stepwise=True)
    rounded = opened(place, "bf16").engine.logits(ids, stepwise=True)
    assert not rounded.equal(exact)
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_a_text_is_the_same_alone_in_a_batch_and_with_guesses(place):
    model = opened(place, "bf16")
    options = {"temperature": 0.0, "max_new_tokens": 12}
    together = omnima.generation.generate(model, None, PROMPTS, **options)
    for prompt, written in zip(PROMPTS, together, strict=True):
        assert model.generate(prompt, **options).ids == written.ids
        assert model.generate(prompt, speculation="lookup", **options).ids == written.ids


def test_what_does_not_fit_is_refused(place):
    with pytest.raises(ConfigError, match='take dtype="bfloat16", or "auto"'):
        omnima.Model.from_pretrained(place, activations="bf16")
    with pytest.raises(ConfigError, match='where the file stores them so, not "bf16"'):
        omnima.Model.from_pretrained(place, dtype="bf16", activations="bf16")
    with pytest.raises(ConfigError, match="float32, bf16 and int8"):
        opened(place, "fp8")
