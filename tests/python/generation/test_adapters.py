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
    ("adalora", {"rank": 3, "initial_rank": 5}),
    ("vera", {"rank": 24}),
    ("vera", {"rank": 6, "targets": "k_proj,down_proj"}),
    ("bitfit", {"targets": "q_proj,v_proj"}),
    ("bitfit", {}),  # biases that the base has none of
    ("bottleneck", {"rank": 5}),
    ("bottleneck", {"rank": 3, "targets": "down_proj"}),
    ("prompt", {"virtual_tokens": 5}),
    ("prefix", {"virtual_tokens": 3}),
]
ALL = [f"a{i}" for i in range(len(KINDS))]
#: Of these, whose changes weights and biases of the base can hold.
MERGING = ALL[: [kind for kind, _ in KINDS].index("bitfit") + 1]


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


def prompt_of(number):
    return PROMPTS[number % len(PROMPTS)]


def merges(choice):
    return not isinstance(choice, str) or choice in MERGING


def merged_logits(model, choice, ids, **options):
    model.set_adapters(choice)
    model.merge_adapters()
    found = model.engine.logits(ids, **options)
    model.unmerge_adapters()
    model.set_adapters({})
    return found


def trained_logits(model, choice, ids):
    """Of the pass that training knows, with the adapter beside the weights."""
    model.set_adapters(choice or {})
    found = model(torch.tensor([ids]))[0].detach()
    model.set_adapters({})
    return found


def written_by_training(model, choice, prompt):
    ids = list(prompt)
    for _ in range(GREEDY["max_new_tokens"]):
        ids.append(int(trained_logits(model, choice, ids)[-1].argmax()))
    return ids[len(prompt) :]


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(
    "choice", [*ALL, {"a0": 0.5, "a2": -2.0}, {"a7": 0.5, "a8": 2.0, "a1": 1.0}]
)
@pytest.mark.parametrize("stepwise", [False, True])
def test_logits_are_those_of_the_merged_model_and_of_training(model, choice, stepwise) -> None:
    ids = PROMPTS[1]
    expected = trained_logits(model, choice, ids)
    if merges(choice):
        assert distance(merged_logits(model, choice, ids, stepwise=stepwise), expected) < 1e-4
    model.set_adapters(choice)
    assert distance(model.engine.logits(ids, stepwise=stepwise), expected) < 1e-4
    model.set_adapters({})
    assert distance(model.engine.logits(ids), expected) > 0.05


@pytest.mark.parametrize("choice", MERGING)
def test_prompts_in_bfloat16_are_rounded_as_merged_ones_are(model, choice) -> None:
    ids = PROMPTS[1]
    expected = merged_logits(model, choice, ids)
    merged = merged_logits(model, choice, ids, bf16_prompts=True)
    model.set_adapters(choice)
    beside = model.engine.logits(ids, bf16_prompts=True)
    model.set_adapters({})
    assert not torch.equal(beside, expected)
    assert (beside - expected).abs().mean() < 2.5 * (merged - expected).abs().mean()


@pytest.mark.parametrize("choice", [each for each in ALL if each not in MERGING])
def test_prompts_in_bfloat16_are_near_those_in_float32(model, choice) -> None:
    expected = trained_logits(model, choice, PROMPTS[1])
    model.set_adapters(choice)
    rounded = model.engine.logits(PROMPTS[1], bf16_prompts=True)
    model.set_adapters({})
    assert not torch.equal(rounded, expected)
    assert (rounded - expected).abs().mean() < 0.02 * expected.abs().max()


def test_each_prompt_has_the_text_of_its_own_model(model) -> None:
    choices = [*ALL, None]
    prompts = [prompt_of(i) for i in range(len(choices))]
    together = generate(model, None, prompts, adapters=choices, **GREEDY)
    for prompt, choice, found in zip(prompts, choices, together, strict=True):
        assert found.ids == written_by_training(model, choice, prompt), choice
        model.set_adapters(choice or {})
        assert found.ids == generate(model, None, [prompt], **GREEDY)[0].ids, choice
        if choice in MERGING:
            model.merge_adapters()
            assert found.ids == generate(model, None, [prompt], **GREEDY)[0].ids, choice
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
    choices = ["a0", None, "a3", "a0", "a4", {"a0": 0.5, "a1": 1.5}, "a0", "a3", *ALL[7:]]
    seeds = list(range(len(choices)))
    prompts = [prompt_of(i) for i in seeds]
    together = generate(model, None, prompts, adapters=choices, seed=seeds, **drawn)
    guessed = generate(
        model, None, prompts, adapters=choices, seed=seeds, speculation="lookup", **drawn
    )
    for i, found in enumerate(together):
        alone = generate(
            model, None, [prompts[i]], adapters=[choices[i]], seed=[seeds[i]], **drawn
        )[0]
        assert found.ids == alone.ids == guessed[i].ids
    backwards = generate(
        model, None, prompts[::-1], adapters=choices[::-1], seed=seeds[::-1], **drawn
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
    for choice in ALL:
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
    for choice in ("a0", "a8", "a11", "a12", "a14"):
        with pytest.raises(ConfigError, match="another model's"):
            engine.generate([[1]], {}, [0], adapters=[model.adapted(choice)])
    flat = made(num_hidden_layers=1)
    engine = _core.Engine(flat.core.config.values(), dict(flat.named_parameters()))
    for choice in ("a12", "a15"):
        with pytest.raises(ConfigError, match="another model's"):
            engine.generate([[1]], {}, [0], adapters=[model.adapted(choice)])
    with pytest.raises(ConfigError, match="1 prompts but 2 choices"):
        engine.generate([[1]], {}, [0], adapters=[None, None])


def test_virtual_tokens_take_room_of_their_own_text_alone(model) -> None:
    room = model.config.max_position_embeddings
    prompt = [1] * (room - 4)
    written = generate(
        model, None, [prompt, prompt], adapters=[None, "a15"], **GREEDY | {"max_new_tokens": 9}
    )
    assert [len(each.ids) for each in written] == [4, 1]
    with pytest.raises(ConfigError, match=f"Prompt 1 has {room - 4} tokens.*context of {room - 5}"):
        generate(model, None, [prompt, prompt], adapters=[None, "a14"], **GREEDY)


def test_a_choice_takes_the_place_of_those_in_use(model) -> None:
    for choice in ("a9", "a12", "a14"):
        expected = generate(model, None, [[1, 2]], adapters=[choice], **GREEDY)[0].ids
        base = generate(model, None, [[1, 2]], adapters=[None], **GREEDY)[0].ids
        for in_use in ("a0", "a12", "a15"):
            model.set_adapters(in_use)
            both = generate(model, None, [[1, 2]] * 2, adapters=[choice, None], **GREEDY)
            assert [each.ids for each in both] == [expected, base]
        model.set_adapters({})


def said(engine, submitted, **options):
    """What a scheduler answers to (prompt, adapters), all asked at once: ids and logprobs."""
    scheduler = _core.Scheduler(engine, **options)
    asked = {"max_new_tokens": 4, "temperature": 0.0}
    requests = [
        scheduler.submit(prompt, asked, adapters=adapted, top_logprobs=0)
        for prompt, adapted in submitted
    ]
    found = {request: [] for request in requests}
    left = set(requests)
    while left:
        for request, ids, logprobs, reason, _, error in scheduler.events(20.0):
            assert not error
            found[request] += zip(ids, (each[0] for each in logprobs))
            if reason:
                left.remove(request)
    scheduler.close()
    return [found[request] for request in requests]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_scheduler_answers_with_adapters_as_it_does_alone(model, precision) -> None:
    choices = [None, *ALL, "a0", None, "a0", "a3"]
    adapted = {choice: model.adapted({choice: 1.0}) if choice else None for choice in choices}
    # Of all lengths: some are read in one pass with others, some in several.
    submitted = [
        ([(7 * i + j) % 60 for j in range(1 + 11 * i % 90)], adapted[choice])
        for i, choice in enumerate(choices)
    ]
    together = said(model.engine, submitted, prompt_precision=precision, max_sequences=32)
    for number, (each, beside) in enumerate(zip(submitted, together)):
        assert said(model.engine, [each], prompt_precision=precision)[0] == beside, choices[number]
