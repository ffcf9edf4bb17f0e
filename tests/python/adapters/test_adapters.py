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


def options_of(method: str) -> dict[str, int]:
    return {} if method == "ia3" else {"rank": 2}


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
    assert distance(model(IDS), before) < 1e-5
    moved(model, "default")
    assert distance(model(IDS), before) > 1e-2
    model.remove_adapter()
    assert torch.equal(model(IDS), before)
    parameters = model.named_parameters()
    assert all(torch.equal(a, b) for a, (_, b) in zip(weights, parameters, strict=True))
    assert all(each.requires_grad for _, each in parameters)


@pytest.mark.parametrize("method", METHODS)
def test_merging_changes_no_logit_and_unmerging_no_bit(method: str) -> None:
    model = made()
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
    model = made()
    model.add_adapter(method, **options_of(method))
    moved(model, "default", 0.3)
    row = [1, 2, 3]
    adapted = model(torch.tensor([row]))[0]
    assert distance(model.engine.logits(row), adapted) < 1e-4
    options = {"max_new_tokens": 8, "temperature": 0.0, "ignore_eos": True}
    written = omnima.generation.generate(model, None, [row], **options)[0]
    model.merge_adapters()
    merged = omnima.generation.generate(model, None, [row], **options)[0]
    assert written.ids == merged.ids
    model.unmerge_adapters()
    model.set_adapters({})
    assert distance(model.engine.logits(row), adapted) > 1e-3


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
    "other tensors": (lambda folder: rename(folder, "lora_A", "lora_C"), "expected are"),
}  # fmt: skip


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


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
