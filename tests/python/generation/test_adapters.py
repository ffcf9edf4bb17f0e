"""Adapters of each prompt: the texts of merged models, beside others, on one base."""

from __future__ import annotations

import pytest
import torch

import omnima
from omnima import _core
from omnima.errors import ConfigError
from omnima.generation import generate

PROMPTS = [[1, 2, 3], list(range(5, 45)), [7], [9, 8, 7, 6], [1, 2, 3], [3, 30, 3], [50, 2], [4]]
GREEDY = {"max_new_tokens": 12, "temperature": 0.0, "ignore_eos": True}
KINDS = [
    ("lora", {"rank": 4, "targets": "all-linear"}),
    ("lora", {"rank": 3, "targets": "q_proj,down_proj", "alpha": 7.0}),
    ("pissa", {"rank": 2, "targets": "v_proj,o_proj"}),
    ("dora", {"rank": 4, "targets": "all-linear"}),
    ("ia3", {}),
    ("ia3", {"targets": "k_proj,gate_proj"}),
    ("lora", {"rank": 20, "targets": "layers.0.*", "rank_stabilized": True}),
]


def made(seed=0, **changes):
    shape = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
        "attention_bias": True,
    }
    return omnima.Model.from_preset("nima", vocab_size=64, seed=seed, **shape | changes)


def with_adapters(**changes):
    """A model with one adapter of each kind, all of which change what it says."""
    model = made(**changes)
    draw = torch.Generator().manual_seed(4)
    for number, (method, options) in enumerate(KINDS):
        name = f"a{number}"
        model.add_adapter(method, name=name, **options)
        with torch.no_grad():
            for _, each in model.adapter_parameters(name):
                each.add_(torch.randn(each.shape, generator=draw) * 0.2)
    model.set_adapters({})
    return model


@pytest.fixture(scope="module")
def model():
    return with_adapters()


def merged_logits(model, choice, ids, **options):
    model.set_adapters(choice)
    model.merge_adapters()
    found = model.engine.logits(ids, **options)
    model.unmerge_adapters()
    model.set_adapters({})
    return found


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("choice", [f"a{i}" for i in range(len(KINDS))] + [{"a0": 0.5, "a2": -2.0}])
@pytest.mark.parametrize("stepwise", [False, True])
def test_logits_are_those_of_the_merged_model(model, choice, stepwise) -> None:
    ids = PROMPTS[1]
    expected = merged_logits(model, choice, ids, stepwise=stepwise)
    model.set_adapters(choice)
    assert distance(model.engine.logits(ids, stepwise=stepwise), expected) < 1e-4
    model.set_adapters({})
    assert distance(model.engine.logits(ids), expected) > 0.05


@pytest.mark.parametrize("choice", [f"a{i}" for i in range(len(KINDS))])
def test_prompts_in_bfloat16_are_rounded_as_merged_ones_are(model, choice) -> None:
    ids = PROMPTS[1]
    expected = merged_logits(model, choice, ids)
    merged = merged_logits(model, choice, ids, bf16_prompts=True)
    model.set_adapters(choice)
    beside = model.engine.logits(ids, bf16_prompts=True)
    model.set_adapters({})
    assert not torch.equal(beside, expected)
    assert (beside - expected).abs().mean() < 2.5 * (merged - expected).abs().mean()


def test_each_prompt_has_the_text_of_its_own_merged_model(model) -> None:
    choices = [*(f"a{i}" for i in range(len(KINDS))), None]
    together = generate(model, None, PROMPTS, adapters=choices, **GREEDY)
    for prompt, choice, found in zip(PROMPTS, choices, together, strict=True):
        model.set_adapters(choice or {})
        if choice is not None:
            model.merge_adapters()
        assert found.ids == generate(model, None, [prompt], **GREEDY)[0].ids, choice
        if choice is not None:
            model.unmerge_adapters()
        model.set_adapters({})


@pytest.mark.parametrize("cache_precision", ["fp32", "int8"])
def test_a_text_depends_on_no_neighbour(model, cache_precision) -> None:
    """Drawn at random, with guesses, in another order and among equal adapters."""
    drawn = {
        "max_new_tokens": 15,
        "temperature": 1.0,
        "ignore_eos": True,
        "cache_precision": cache_precision,
    }
    choices = ["a0", None, "a3", "a0", "a4", {"a0": 0.5, "a1": 1.5}, "a0", "a3"]
    seeds = list(range(8))
    together = generate(model, None, PROMPTS, adapters=choices, seed=seeds, **drawn)
    guessed = generate(
        model, None, PROMPTS, adapters=choices, seed=seeds, speculation="lookup", **drawn
    )
    for i, found in enumerate(together):
        alone = generate(
            model, None, [PROMPTS[i]], adapters=[choices[i]], seed=[seeds[i]], **drawn
        )[0]
        assert found.ids == alone.ids == guessed[i].ids
    backwards = generate(
        model, None, PROMPTS[::-1], adapters=choices[::-1], seed=seeds[::-1], **drawn
    )
    assert [each.ids for each in backwards[::-1]] == [each.ids for each in together]


def test_adapters_follow_their_training(model) -> None:
    other = made()
    other.add_adapter("lora", name="one", rank=2)
    before = generate(other, None, [[1, 2]], adapters="one", **GREEDY)[0].ids
    assert before == generate(other, None, [[1, 2]], adapters={}, **GREEDY)[0].ids
    with torch.no_grad():
        for _, each in other.adapter_parameters("one"):
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)))
    assert before != generate(other, None, [[1, 2]], adapters="one", **GREEDY)[0].ids


def test_experts_have_adapters_of_their_own_rows() -> None:
    model = made(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
    draw = torch.Generator().manual_seed(5)
    for name in "ab":
        model.add_adapter("lora", name=name, rank=3, targets="all-linear")
        with torch.no_grad():
            for _, each in model.adapter_parameters(name):
                each.add_(torch.randn(each.shape, generator=draw) * 0.2)
    model.set_adapters({})
    choices = ["a", "b", None, "b", "a", "a", "b", None]
    together = generate(model, None, PROMPTS, adapters=choices, **GREEDY)
    for prompt, choice, found in zip(PROMPTS, choices, together, strict=True):
        alone = generate(model, None, [prompt], adapters=[choice], **GREEDY)[0]
        assert found.ids == alone.ids
    for choice in "ab":
        expected = merged_logits(model, choice, PROMPTS[1])
        model.set_adapters(choice)
        assert distance(model.engine.logits(PROMPTS[1]), expected) < 1e-4


@pytest.mark.parametrize("format", ["bf16", "int8_g32", "nf4_g32x1"])
def test_a_base_of_few_bits_is_left_as_it_is(model, format) -> None:
    """The adapter's products are added to those of the blocks, in full precision."""
    values = model.core.config.values()
    stored, formats, numbers = {}, {}, {}
    for name, each in model.named_parameters():
        each = each.detach()
        numbers[name] = stored[name] = each
        if each.ndim != 2 or "embed" in name:
            continue
        if format == "bf16":
            stored[name] = each.to(torch.bfloat16)
            numbers[name] = stored[name].float()
        else:
            stored[name] = _core.quantized(format, each)
            formats[name] = format
            numbers[name] = _core.dequantized(format, stored[name], list(each.shape))
    for choice in ("a0", "a3", "a4"):
        adapted = model.adapted(choice)
        found = _core.Engine(values, stored, formats, adapters=adapted)
        expected = _core.Engine(values, numbers, adapters=adapted)
        for stepwise in (False, True):
            logits = found.logits(PROMPTS[1], stepwise=stepwise)
            assert distance(logits, expected.logits(PROMPTS[1], stepwise=stepwise)) < 1e-4


def test_what_cannot_be_chosen_is_an_error(model) -> None:
    with pytest.raises(ConfigError, match='no adapter "zz"'):
        generate(model, None, [[1]], adapters="zz", **GREEDY)
    with pytest.raises(ConfigError, match="2 choices, but there are 1 prompts"):
        generate(model, None, [[1]], adapters=["a0", "a1"], **GREEDY)
    with pytest.raises(ConfigError, match="used alone"):
        generate(model, None, [[1]], adapters={"a3": 1.0, "a0": 1.0}, **GREEDY)
    with pytest.raises(ConfigError, match="by name"):
        generate(model, None, [[1]], adapters=[3], **GREEDY)  # type: ignore[list-item]
    narrow = made(hidden_size=32)
    engine = _core.Engine(narrow.core.config.values(), dict(narrow.named_parameters()))
    with pytest.raises(ConfigError, match="another model's"):
        engine.generate([[1]], {}, [0], adapters=[model.adapted("a0")])
    with pytest.raises(ConfigError, match="1 prompts but 2 choices"):
        engine.generate([[1]], {}, [0], adapters=[None, None])
