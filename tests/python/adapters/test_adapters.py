"""Adapters of a model: where they stand, several at once, merging, what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

import omnima
from omnima import _core
from omnima.adapters import METHODS, AdapterOptions
from omnima.errors import ConfigError, DataError

IDS = torch.arange(12).view(2, 6)


def made(seed: int = 3, **changes: object) -> omnima.Model:
    values = {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32, **changes,
    }  # fmt: skip
    return omnima.Model.from_config(values, seed=seed)


#: Which are no part of any weights.
BESIDE = ("bottleneck", "prompt", "prefix")
IN_FRONT = ("prompt", "prefix")


def options_of(method: str) -> dict[str, int]:
    if method in IN_FRONT:
        return {"virtual_tokens": 3}
    return {} if method in ("ia3", "bitfit") else {"rank": 2}


def base_for(method: str) -> omnima.Model:
    """A model that the adapter can be merged into."""
    return made(attention_bias=True, mlp_bias=True) if method == "bitfit" else made()


def moved(model: omnima.Model, name: str, by: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for _, each in model.adapter_parameters(name):
            each.add_(by * torch.randn(each.shape, generator=generator))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_begins_as_the_model_and_leaves_it_as_it_was(method: str) -> None:
    model = made()
    before = model(IDS)
    weights = [each.detach().clone() for _, each in model.named_parameters()]
    model.add_adapter(method, **options_of(method))
    if method not in IN_FRONT:  # whose tokens are seen at once
        assert distance(model(IDS), before) < 1e-5
    moved(model, "default")
    assert distance(model(IDS), before) > 1e-2
    model.remove_adapter()
    assert torch.equal(model(IDS), before)
    parameters = model.named_parameters()
    assert all(torch.equal(a, b) for a, (_, b) in zip(weights, parameters, strict=True))
    assert all(each.requires_grad for _, each in parameters)


@pytest.mark.parametrize("method", BESIDE)
def test_what_is_no_part_of_weights_does_not_merge(method: str) -> None:
    model = made()
    model.add_adapter(method, **options_of(method))
    adapted = model(IDS)
    with pytest.raises(ConfigError, match="no part of any weights"):
        model.merge_adapters()
    assert torch.equal(model(IDS), adapted)


@pytest.mark.parametrize("method", [each for each in METHODS if each not in BESIDE])
def test_merging_changes_no_logit_and_unmerging_no_bit(method: str) -> None:
    model = base_for(method)
    weights = {name: each.detach().clone() for name, each in model.named_parameters()}
    model.add_adapter(method, **options_of(method))
    moved(model, "default")
    adapted = model(IDS)
    model.merge_adapters()
    assert distance(model(IDS), adapted) < 2e-5
    with pytest.raises(ConfigError, match="unmerge_adapters"):
        model.add_adapter(name="more")
    model.unmerge_adapters()
    assert all(torch.equal(each, weights[name]) for name, each in model.named_parameters())
    assert torch.equal(model(IDS), adapted)


@pytest.mark.parametrize("method", METHODS)
def test_texts_are_written_with_the_adapters_in_use(method: str) -> None:
    model = base_for(method)
    model.add_adapter(method, **options_of(method))
    moved(model, "default", 0.3)
    row = [1, 2, 3]
    adapted = model(torch.tensor([row]))[0]
    assert distance(model.engine.logits(row), adapted) < 1e-4
    stepwise = model.engine.logits(row, stepwise=True)
    assert distance(stepwise, adapted) < 1e-4
    options = {"max_new_tokens": 8, "temperature": 0.0, "ignore_eos": True}
    written = omnima.generation.generate(model, None, [row, [5]], **options)[0]
    expected = list(row)
    for _ in range(8):
        expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))
    assert written.ids == expected[len(row) :]
    model.set_adapters({})
    assert distance(model.engine.logits(row), adapted) > 1e-3


def test_biases_are_learned_where_the_model_has_none() -> None:
    model = made()
    model.add_adapter("bitfit", targets="q_proj,down_proj")
    assert not any(each.any() for _, each in model.adapter_parameters())
    moved(model, "default", 0.3)
    row = [1, 2, 3]
    adapted = model(torch.tensor([row]))[0]
    assert distance(model.engine.logits(row), adapted) < 1e-4
    with pytest.raises(ConfigError, match=r"down_proj\.bias|q_proj\.bias"):
        model.merge_adapters()


def test_biases_that_peft_has_no_place_for_come_back(tmp_path: Path) -> None:
    model = made()
    model.add_adapter("bitfit")
    moved(model, "default")
    model.save_adapter(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] not in (
        "LORA", "IA3",
    )  # fmt: skip
    again = made()
    again.load_adapter(tmp_path)
    assert torch.equal(again(IDS), model(IDS))


def test_several_adapters_add_up_by_their_weights() -> None:
    model = made()
    plain = dict(model.named_parameters())
    for name in ("a", "bb"):
        model.add_adapter(name=name, rank=2, targets="o_proj")
        moved(model, name)
    model.set_adapters({"a": 0.5, "bb": -2.0})
    combined = model(IDS)
    expected = made()
    with torch.no_grad():
        for name, each in expected.named_parameters():
            if "o_proj" not in name:
                continue
            for adapter, weight in (("a", 0.5), ("bb", -2.0)):
                parts = dict(model.adapter_parameters(adapter))
                site = name.removesuffix(".weight")
                down, up = parts[f"{site}.lora_A.weight"], parts[f"{site}.lora_B.weight"]
                each.add_(weight * 2 * up @ down)
            assert not torch.equal(each, plain[name])
    assert distance(combined, expected(IDS)) < 1e-5


def test_exchanging_eight_adapters_takes_under_a_millisecond() -> None:
    model = made()
    for number in range(8):
        model.add_adapter(name=str(number), rank=4)
    taken = []
    for number in range(40):
        start = time.perf_counter()
        model.set_adapters(str(number % 8))
        taken.append(time.perf_counter() - start)
    assert sorted(taken)[20] < 1e-3


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        ("all-linear", 14), ("q_proj,v_proj", 4), (["self_attn.*"], 8), ("layers.1.*", 7),
        ("model.layers.0.mlp.down_proj", 1), ("*gate_proj", 2),
    ],
)  # fmt: skip
def test_targets_are_names_and_patterns(targets: str | list[str], count: int) -> None:
    model = made()
    model.add_adapter(rank=2, targets=targets)
    assert len(model.adapter_parameters()) == 2 * count


@pytest.mark.parametrize("targets", ["query", "q_proj,valve", "", [], "lm_head", "embed_tokens"])
def test_a_target_that_is_nowhere_is_refused(targets: str | list[str]) -> None:
    model = made()
    with pytest.raises(ConfigError, match=r"change nothing"):
        model.add_adapter(targets=targets)
    assert model.adapters == {} and model.num_trainable_parameters == model.num_parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "loora"}, "Unknown adapter"),
        ({"rank": 0}, "rank is 0"),
        ({"rank": 33, "method": "pissa"}, "choose a smaller one"),
        ({"alpha": -1.0}, "alpha is -1"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"init": "zeros"}, "init is"),
        ({"method": "pissa", "init": "gaussian"}, "has init"),
        ({"method": "dora", "init": "pissa"}, "DoRA begins with the base"),
        ({"rank_pattern": {"q_proj": 0}}, "rank of q_proj"),
        ({"rank_pattern": {"(a+)+b": 2}}, "no pattern of module names"),
        ({"alpha_pattern": {".*.*.*.*q": 2.0}}, "no pattern of module names"),
        ({"alpha_pattern": {"(q_proj": 2.0}}, "no regular expression"),
        ({"name": "taken"}, "already"),
        ({"method": "ia3", "rank": 4}, "ia3 has no rank"),
        ({"method": "bitfit", "dropout": 0.1}, "bitfit has no dropout"),
        ({"method": "vera", "alpha": 4.0}, "vera has no alpha"),
        ({"method": "vera", "rank": -4}, "rank is -4"),
        ({"method": "prompt", "targets": "q_proj"}, "prompt has no targets"),
        ({"method": "prefix", "virtual_tokens": 0}, "virtual_tokens is 0"),
        ({"method": "prompt", "rank": 4}, "prompt has no rank"),
        ({"method": "prompt", "init": "pissa"}, "init is"),
        ({"virtual_tokens": 4}, "lora has no virtual_tokens"),
        ({"method": "adalora", "rank": 8, "initial_rank": 4}, "initial_rank is 4"),
        ({"method": "adalora", "budget_start": 0.8}, "shrinks from 0.8"),
        ({"method": "adalora", "budget_every": 0}, "budget_every is 0"),
        ({"initial_rank": 4}, "adalora has a budget"),
        ({"method": "bottleneck", "targets": "q_proj"}, "stands behind attention"),
        ({"method": "bottleneck", "alpha": 2.0}, "bottleneck has no alpha"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, object], message: str) -> None:
    model = made()
    model.add_adapter(name="taken", rank=2)
    with pytest.raises(ConfigError, match=message):
        model.add_adapter(**{"name": "new", **options})
    assert list(model.adapters) == ["taken"]


def test_a_kind_that_does_not_add_up_is_used_alone() -> None:
    model = made()
    model.add_adapter("dora", name="dora", rank=2)
    model.add_adapter("lora", name="lora", rank=2)
    for weights in ({"dora": 0.5}, {"dora": 1.0, "lora": 1.0}):
        with pytest.raises(ConfigError, match="used alone"):
            model.set_adapters(weights)
    with pytest.raises(ConfigError, match="There is no adapter"):
        model.set_adapters("dorra")
    assert model.core.adapters_in_use == {"lora": 1.0}


def test_dropout_is_of_training_and_follows_the_seed() -> None:
    model = made()
    model.add_adapter(rank=2, dropout=0.5)
    moved(model, "default")
    assert torch.equal(model(IDS), model(IDS))
    options = _core.StepOptions()
    losses = []
    for seed in (1, 1, 2):
        options.seed = seed
        losses.append(_core.TrainStep(model.core, options).time_pass(IDS, IDS, 1))
    steps = []
    for seed in (1, 1, 2):
        other = made()
        other.add_adapter(rank=2, dropout=0.5)
        moved(other, "default")
        options.seed = seed
        steps.append(_core.TrainStep(other.core, options).run_batches([(IDS, IDS)]).loss)
    assert steps[0] == steps[1] != steps[2]
    assert made().loss(IDS, IDS).item() != steps[0]


def test_plus_moves_the_upper_factor_faster() -> None:
    moves = []
    for rate in (1.0, 8.0):
        model = made()
        model.add_adapter("lora+", rank=2, up_rate=rate)
        moved(model, "default")
        before = [each.detach().clone() for _, each in model.adapter_parameters()]
        options = _core.StepOptions()
        options.schedule, options.weight_decay = "constant", 0.0
        _core.TrainStep(model.core, options).run_batches([(IDS, IDS)])
        after = model.adapter_parameters()
        pairs = zip(before, after, strict=True)
        moves.append([((new - old).abs().max().item(), name) for old, (name, new) in pairs])
    for (slow, name), (fast, _) in zip(*moves, strict=True):
        assert fast / slow == pytest.approx(8.0 if "lora_B" in name else 1.0, rel=1e-3)


def test_the_base_keeps_no_gradients_in_training() -> None:
    model = made()
    model.add_adapter(rank=2)
    step = _core.TrainStep(model.core, _core.StepOptions())
    step.run_batches([(IDS, IDS)])
    learning = model.num_trainable_parameters
    assert {name: each.numel() for name, each in step.state().items()} == dict.fromkeys(
        ("exp_avg", "exp_avg_sq", "weights"), learning
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_blocks_that_compute_twice_change_no_bit(method: str, precision: str) -> None:
    made_of = []
    for layers in (0, 2):
        model = made()
        model.add_adapter(method, **options_of(method))
        options = _core.StepOptions()
        options.precision, options.checkpoint_layers, options.schedule = (
            precision,
            layers,
            "constant",
        )
        step = _core.TrainStep(model.core, options)
        losses = [step.run_batches([(IDS, IDS)]).loss for _ in range(3)]
        made_of.append((losses, step.state()["weights"].clone()))
    (losses, weights), (again, same) = made_of
    assert losses == again and torch.equal(weights, same)


@pytest.mark.parametrize("method", METHODS)
def test_rows_dealt_to_threads_give_the_same_gradient(method: str) -> None:
    ids = torch.arange(48).view(8, 6)
    threads, made_of = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = made()
            model.add_adapter(method, **options_of(method))
            moved(model, "default")
            options = _core.StepOptions()
            options.schedule, options.optimizer, options.lr = "constant", "sgd", 1e-2
            step = _core.TrainStep(model.core, options)
            norm = step.run_batches([(ids, ids)]).grad_norm
            made_of.append((norm, step.state()["weights"].clone()))
    finally:
        torch.set_num_threads(threads)
    (norm, weights), (again, same) = made_of
    assert norm == pytest.approx(again, rel=1e-5) and distance(weights, same) < 1e-5


def test_experts_take_adapters() -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = made(**experts)
    before = model(IDS)
    model.add_adapter(rank=2, targets="experts.*")
    moved(model, "default")
    adapted = model(IDS)
    assert distance(adapted, before) > 1e-3
    model.merge_adapters()
    assert distance(model(IDS), adapted) < 1e-5


def test_a_quantized_model_learns_but_does_not_merge() -> None:
    model = made()
    model.quantize("int8", keep=["*embed*"])
    model.add_adapter(rank=2)
    model.loss(IDS, IDS).backward()
    with pytest.raises(ConfigError, match="is quantized"):
        model.merge_adapters()


def test_quantizing_and_growing_want_a_model_without_adapters() -> None:
    model = made()
    model.add_adapter(rank=2)
    with pytest.raises(ConfigError, match="adapters"):
        model.quantize("int8")
    model.set_adapters({})
    with pytest.raises(ConfigError, match="adapters"):
        model.resize(70)
    model.set_adapters("default")
    with pytest.raises(ConfigError, match="adapters"):
        model.save_pretrained("nowhere")


BROKEN = {
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "pickled"),
    "another kind": (lambda folder: edit(folder, peft_type="HIRA"), "HIRA"),
    "biases": (lambda folder: edit(folder, bias="all"), "bias is 'all'"),
    "saved modules": (lambda folder: edit(folder, modules_to_save=["lm_head"]), "modules_to_save"),
    "drawn anew": (lambda folder: edit(folder, init_lora_weights="pissa_niter_4"), "niter"),
    "another rank": (lambda folder: edit(folder, r=3), "ask for"),
    "no rank": (lambda folder: edit(folder, r=None), "does not describe"),
    "magnitudes": (lambda folder: edit(folder, use_dora=True), "magnitude"),
    "another model": (
        lambda folder: rename(folder, "self_attn.q_proj", "attn.c_attn"), "of another model"
    ),
    "biases beside a product": (
        lambda folder: (fill(folder), edit(folder, bias="lora_only")), "learned together"
    ),
    "other tensors": (lambda folder: rename(folder, "lora_A", "lora_C"), "expected are"),
}  # fmt: skip


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fill(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {key: torch.ones_like(each) for key, each in _core.read_safetensors(path).items()}
    _core.write_safetensors(path, tensors)


def rename(folder: Path, old: str, new: str) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {k.replace(old, new): v.clone() for k, v in _core.read_safetensors(path).items()}
    _core.write_safetensors(path, tensors)


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_directories_are_refused(broken: str, tmp_path: Path) -> None:
    model = made()
    model.add_adapter(rank=2)
    model.save_adapter(tmp_path)
    breaks, message = BROKEN[broken]
    breaks(tmp_path)
    fresh = made()
    with pytest.raises(DataError, match=message):
        fresh.load_adapter(tmp_path, name="read")
    assert fresh.adapters == {} and fresh.core.learning_adapter is None


def test_an_adapter_of_another_size_is_refused(tmp_path: Path) -> None:
    model = made()
    model.add_adapter(rank=2)
    model.save_adapter(tmp_path)
    with pytest.raises(DataError, match="its shape is"):
        made(hidden_size=48).load_adapter(tmp_path)


def test_factors_of_inputs_want_a_layer_of_their_own() -> None:
    model = made()
    options = AdapterOptions(kind="ia3", feedforward=("model.layers.0.mlp.up_proj",))
    with pytest.raises(ConfigError, match="of other modules"):
        model._attach("wrong", options, [model.linear_modules["model.layers.0.mlp.up_proj"]])


def test_patterns_say_where_ranks_differ() -> None:
    patterns = {r"layers\.1\..*\.q_proj": 3, "k_proj|v_proj": 5}
    options = AdapterOptions.of("lora", rank=2, rank_pattern=patterns)
    ranks = [
        options.rank_of(f"model.layers.{n}.self_attn.{p}_proj") for n in (0, 1) for p in "qkvo"
    ]
    assert ranks == [2, 5, 5, 2, 3, 5, 5, 2]


def test_options_by_method() -> None:
    assert AdapterOptions.of("lora", rank=4).alpha == 8
    assert AdapterOptions.of("pissa", rank=4).scale("x") == 1
    assert AdapterOptions.of("rslora", rank=4).scale("x") == 2
    assert AdapterOptions.of("lora+").up_rate == 16


@pytest.mark.parametrize("method", IN_FRONT)
@pytest.mark.parametrize("positions", ["rotary", "learned", "alibi", "relative"])
def test_packed_documents_have_virtual_tokens_of_their_own(method: str, positions: str) -> None:
    model = made(positions=positions, max_position_embeddings=64)
    model.add_adapter(method, virtual_tokens=3)
    moved(model, "default", 0.3)
    lengths = ((4, 6), (7,))
    time, generator = 12, torch.Generator().manual_seed(1)
    ids = torch.zeros(2, time, dtype=torch.long)
    labels = torch.full((2, time), -100)
    segments = torch.full((2, time), 9)
    total, count, alone = 0.0, 0, []
    for row, of_row in enumerate(lengths):
        at = 0
        for number, length in enumerate(of_row):
            tokens = torch.randint(61, (1, length + 1), generator=generator)
            ids[row, at : at + length] = tokens[0, :-1]
            labels[row, at + 1 : at + length] = tokens[0, 2:]  # the first target is not learned
            segments[row, at : at + length] = number
            own = tokens[:, 1:].clone()
            own[0, 0] = -100
            alone.append((tokens[:, :-1], own))
            at += length
    packed = model.loss(ids, labels, segments.int())
    packed.backward()
    gradients = [each.grad.clone() for _, each in model.adapter_parameters()]
    for _, each in model.adapter_parameters():
        each.grad = None
    for own_ids, own_labels in alone:
        targets = int((own_labels != -100).sum())
        loss = model.loss(own_ids, own_labels) * targets
        loss.backward()
        total, count = total + loss.item(), count + targets
    assert packed.item() == pytest.approx(total / count, rel=1e-5)
    for (name, each), gradient in zip(model.adapter_parameters(), gradients, strict=True):
        assert distance(each.grad / count, gradient) < 1e-5, name


@pytest.mark.parametrize("method", IN_FRONT)
def test_virtual_tokens_take_room_in_the_context(method: str) -> None:
    model = made()
    model.add_adapter(method, virtual_tokens=4)
    assert model.context == 28 and model.virtual_tokens == 4
    fits, too_long = torch.zeros(1, 28, dtype=torch.long), torch.zeros(1, 29, dtype=torch.long)
    model(fits)
    with pytest.raises(DataError, match="4 virtual tokens"):
        model(too_long)
    options = {"max_new_tokens": 9, "temperature": 0.0, "ignore_eos": True}
    written = omnima.generation.generate(model, None, [[1] * 24], **options)[0]
    assert len(written.ids) == 4 and written.finish_reason == "length"
    with pytest.raises(ConfigError, match="context of 28"):
        omnima.generation.generate(model, None, [[1] * 28], **options)
    model.set_adapters({})
    assert model.context == 32


@pytest.mark.parametrize("method", IN_FRONT)
def test_guessing_ahead_writes_the_same_behind_virtual_tokens(method: str) -> None:
    model = made(max_position_embeddings=96)
    model.add_adapter(method, virtual_tokens=4)
    moved(model, "default", 0.3)
    prompt = [1, 2, 3, 4] * 9  # longer than where wide products begin
    options = {"max_new_tokens": 24, "temperature": 0.0, "ignore_eos": True}
    plain = omnima.generation.generate(model, None, [prompt], **options)[0]
    ahead = omnima.generation.generate(model, None, [prompt], speculation="lookup", **options)[0]
    assert plain.ids == ahead.ids and ahead.proposed_tokens > 0
    for cache in ("bf16", "int8"):
        other = omnima.generation.generate(model, None, [prompt], cache_precision=cache, **options)
        assert len(other[0].ids) == 24


def test_a_bottleneck_stands_behind_experts() -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = made(**experts)
    before = model(IDS)
    model.add_adapter("bottleneck", rank=2)
    moved(model, "default", 0.3)
    adapted = model(IDS)
    assert distance(adapted, before) > 1e-3
    row = IDS[0].tolist()
    assert distance(model.engine.logits(row), model(IDS[:1])[0]) < 1e-4
    model.loss(IDS, IDS).backward()
    moving = [name for name, each in model.adapter_parameters() if each.grad is not None]
    assert any("experts" in name for name in moving) and any("o_proj" in name for name in moving)


def test_adalora_keeps_its_budget() -> None:
    model = made()
    model.add_adapter("adalora", rank=1, initial_rank=3, budget_every=2)
    options = _core.StepOptions()
    options.total_steps, options.schedule, options.lr = 20, "constant", 1e-2
    step = _core.TrainStep(model.core, options)
    left = []
    for _ in range(20):
        step.run_batches([(IDS, IDS)])
        values = [each for name, each in model.adapter_parameters() if name.endswith("lora_E")]
        left.append(sum(int((each != 0).sum()) for each in values))
    assert left[:3] == [42] * 3 and left[-7:] == [14] * 7
    shrinking = left[3:14:2]  # between those steps what was given up may come back
    assert shrinking == sorted(shrinking, reverse=True) and 14 < shrinking[1] < shrinking[0] < 42
    assert len({int((each != 0).sum()) for each in values}) > 1  # not the same everywhere


@pytest.mark.parametrize("method", IN_FRONT)
def test_rewards_are_given_behind_virtual_tokens(method: str) -> None:
    model = made(reward_head=True)
    before = model.core.rewards(IDS)
    model.add_adapter(method, virtual_tokens=3)
    moved(model, "default", 0.3)
    after = model.core.rewards(IDS)
    assert after.shape == before.shape and distance(after, before) > 1e-3
