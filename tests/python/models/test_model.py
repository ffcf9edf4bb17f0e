"""Model: calls, autograd, saving, and errors that teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import omnima
from omnima import _core
from omnima.errors import DataError, NonFiniteError

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
}


def small(seed: int = 0, **changes: object) -> omnima.Model:
    return omnima.Model.from_config({"vocab_size": 71, **SHAPE, **changes}, seed=seed)


def test_a_preset_gives_logits_and_one_seed_one_model() -> None:
    one, two = (omnima.Model.from_preset("nima", vocab_size=300, seed=4) for _ in range(2))
    ids = torch.randint(300, (2, 9))
    assert one(ids).shape == (2, 9, 300)
    assert one(ids).dtype == torch.float32
    assert torch.equal(one(ids), two(ids))
    other = omnima.Model.from_preset("nima", vocab_size=300, seed=5)
    assert not torch.equal(one(ids), other(ids))
    assert one.num_parameters == one.config.num_parameters


def test_gradients_numerically() -> None:
    model = small(seed=2)
    ids, labels = torch.randint(71, (2, 12)), torch.randint(71, (2, 12))
    model.loss(ids, labels).backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator)
        direction /= direction.norm()
        slope = (parameter.grad * direction).sum().item()
        step = 2e-2 if parameter.dim() > 1 else 5e-2
        with torch.no_grad():
            parameter += step * direction
            above = model.loss(ids, labels).item()
            parameter -= 2 * step * direction
            below = model.loss(ids, labels).item()
            parameter += step * direction
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=0.05, abs=2e-4), name


def test_autograd_from_python_composes() -> None:
    model = small()
    ids, labels = torch.randint(71, (2, 8)), torch.randint(71, (2, 8))
    parameters = [p for _, p in model.named_parameters()]
    once = torch.autograd.grad(model.loss(ids, labels), parameters)
    twice = torch.autograd.grad(3.0 * model.loss(ids, labels), parameters)
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(3.0 * a, b)
    logits = model(ids)
    through_logits = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), parameters
    )
    for a, b in zip(once, through_logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_accumulating_uneven_micro_batches_is_one_batch(cuts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = sum(cuts)
    ids = torch.randint(71, (rows, 10), generator=generator)
    labels = torch.randint(71, (rows, 10), generator=generator)
    labels[torch.rand((rows, 10), generator=generator) < 0.4] = -100
    labels[0, 0] = 5
    whole, parts = small(seed), small(seed)
    one = _core.TrainStep(whole.core, _core.StepOptions()).run_batches([(ids, labels)])
    pieces = list(zip(ids.split(cuts), labels.split(cuts), strict=True))
    step = _core.TrainStep(parts.core, _core.StepOptions())
    many = step.run_batches(pieces)
    assert many.tokens == one.tokens
    assert many.loss == pytest.approx(one.loss, abs=1e-6 * 10)
    assert many.grad_norm == pytest.approx(one.grad_norm, rel=1e-6, abs=1e-6)


@given(lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_packed_documents_have_the_loss_of_single_ones(
    positions: str, lengths: list[int], seed: int
) -> None:
    model = small(seed, positions=positions)
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randint(71, (1, n), generator=generator) for n in lengths]
    labels = [torch.randint(71, (1, n), generator=generator) for n in lengths]
    segments = [torch.full((1, n), i, dtype=torch.int32) for i, n in enumerate(lengths)]
    packed = model.loss(torch.cat(documents, 1), torch.cat(labels, 1), torch.cat(segments, 1))
    single = sum(
        model.loss(d, t).item() * n for d, t, n in zip(documents, labels, lengths, strict=True)
    )
    assert packed.item() == pytest.approx(single / sum(lengths), rel=2e-6)


def test_bf16_learns_along_the_float32_curve() -> None:
    ids = torch.randint(71, (4, 33), generator=torch.Generator().manual_seed(1))
    batch = [(ids[:, :-1], ids[:, 1:].contiguous())]
    curves = {}
    for precision in ("fp32", "bf16"):
        options = _core.StepOptions()
        options.precision, options.lr, options.schedule = precision, 3e-3, "constant"
        step = _core.TrainStep(small(seed=1).core, options)
        curves[precision] = torch.tensor([step.run_batches(batch).loss for _ in range(40)])
    assert curves["fp32"][-1] < 0.6 * curves["fp32"][0]
    torch.testing.assert_close(curves["bf16"], curves["fp32"], rtol=0.03, atol=0.03)


def test_weights_changed_in_python_are_seen_by_the_next_step() -> None:
    model = small()
    options = _core.StepOptions()
    options.precision = "bf16"
    step = _core.TrainStep(model.core, options)
    ids = torch.randint(71, (2, 9))
    step.run_batches([(ids[:, :-1], ids[:, 1:].contiguous())])
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            parameter.zero_()
    loss = step.run_batches([(ids[:, :-1], ids[:, 1:].contiguous())]).loss
    assert loss == pytest.approx(torch.log(torch.tensor(71.0)).item(), rel=1e-3)


def test_nonfinite_losses_leave_the_weights_alone() -> None:
    model = small()
    step = _core.TrainStep(model.core, _core.StepOptions())
    with torch.no_grad():
        model.named_parameters()[0][1][3] = float("inf")
    before = [p.clone() for _, p in model.named_parameters()]
    ids = torch.full((1, 4), 3)
    with pytest.raises(NonFiniteError, match="the weights were not changed"):
        step.run_batches([(ids, ids)])
    after = [p for _, p in model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert step.last_batches[0][0] == [3, 3, 3, 3]


def test_dropout_acts_in_training_only_and_follows_the_seed() -> None:
    ids = torch.randint(71, (2, 9))
    batch = [(ids[:, :-1], ids[:, 1:].contiguous())]
    losses = []
    for seed in (1, 1, 2):
        options = _core.StepOptions()
        options.seed = seed
        losses.append(_core.TrainStep(small(dropout=0.5).core, options).run_batches(batch).loss)
    assert losses[0] == losses[1] != losses[2]
    model = small(dropout=0.5)
    assert torch.equal(model(ids), model(ids))


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    model = small(seed=3)
    model.save_pretrained(tmp_path / "model with spaces é")
    again = omnima.Model.from_pretrained(tmp_path / "model with spaces é")
    ids = torch.randint(71, (1, 7))
    assert torch.equal(model(ids), again(ids))
    assert again.config == model.config


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[1, 71]]), "Token id 71"),
        (torch.tensor([[-1, 2]]), "Token id -1"),
        (torch.zeros((1, 49), dtype=torch.long), "49 tokens, but the model's context holds 48"),
        (torch.zeros((1, 0), dtype=torch.long), "empty"),
        (torch.zeros((2,), dtype=torch.long), r"\[batch, time\]"),
        (torch.zeros((1, 2)), "int64"),
    ],
)
def test_bad_ids_are_explained(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small()(ids)


def test_text_without_a_tokenizer_is_explained() -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        small().generate("hello")
