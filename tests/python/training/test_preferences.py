"""Pairs of answers: losses and gradients are those of the published formulas (as TRL has them), the
reference is measured once, and runs learn to prefer what people preferred."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.python.training.finetune_runs import whole_and_resumed
from tests.python.training.preference_cases import (
    BETA,
    CONTEXT,
    MARGIN,
    WEIGHTS,
    flat,
    fresh,
    opened,
    pairs,
    stepper,
)

from omnima.errors import ConfigError, DataError
from omnima.training.display import Display
from omnima.training.finetune import finetune

QUICK: dict[str, Any] = {
    "context": CONTEXT,
    "batch_size": 4,
    "precision": "fp32",
    "val_fraction": 0.2,
    "eval_every": 5,
    "lr": 3e-3,
}


def summed(model: Any, sample: Any) -> torch.Tensor:
    """The log probability of a sample's answer; differentiable."""
    ids = torch.tensor(sample.ids)
    labels = torch.where(torch.tensor(sample.supervised, dtype=torch.bool), ids, -100)
    loss: torch.Tensor = model.loss(ids[None, :-1], labels[None, 1:])
    return -loss * sample.supervised_tokens


def formula(name: str, mine: torch.Tensor, other: torch.Tensor, reference: Any, sizes: Any) -> Any:
    """TRL 1.16: DPOTrainer (sigmoid, ipo), CPOTrainer (simpo), ORPOTrainer (the odds alone)."""
    if name == "dpo":
        delta = (mine - reference[0]) - (other - reference[1])
        return -F.logsigmoid(BETA * delta)
    if name == "ipo":
        delta = (mine - reference[0]) / sizes[0] - (other - reference[1]) / sizes[1]
        return (delta - 1 / (2 * BETA)) ** 2
    mean, mean_other = mine / sizes[0], other / sizes[1]
    if name == "simpo":
        return -F.logsigmoid(BETA * (mean - mean_other) - MARGIN)
    odds = mean - mean_other - (log1mexp(mean) - log1mexp(mean_other))
    return -BETA * F.logsigmoid(odds)


def imitated(model: Any, samples: Any) -> torch.Tensor:
    losses, tokens = torch.zeros(()), 0
    for each in samples:
        ids = torch.tensor(each.ids[: len(each.ids) - each.supervised[::-1].index(1)])
        losses = losses + model.loss(ids[None, :-1], ids[None, 1:]) * (len(ids) - 1)
        tokens += len(ids) - 1
    return losses / tokens


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    return torch.log(-torch.expm1(x))


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo", "orpo"])
def test_losses_and_gradients_are_those_of_the_formulas(name: str, tmp_path: Path) -> None:
    model, begun = fresh(), fresh(seed=1)
    data = opened(pairs(tmp_path / "a.jsonl", 6), model, val_fraction=0.0)
    samples = data.samples["train"]
    step = stepper(begun, name)
    plain = data.loader("train", 4, CONTEXT, sequential=True)
    reference = step.row_losses(plain, plain.batches_per_epoch)[:12]
    with torch.no_grad():
        assert reference == pytest.approx([-summed(begun, s).item() for s in samples], rel=1e-5)
    data.references = {"train": reference}
    total, margins = torch.zeros(()), []
    for at in range(0, 12, 2):
        both = [summed(model, each) for each in samples[at : at + 2]]
        sizes = [each.supervised_tokens for each in samples[at : at + 2]]
        known = [-each for each in reference[at : at + 2]]
        total = total + formula(name, *both, known, sizes) / 6
        margins.append(BETA * ((both[0] - known[0]) - (both[1] - known[1])).item())
    if name == "orpo":  # it imitates the chosen answers and what was asked, a token as another
        total = total + imitated(model, samples[::2])
    gradients = torch.autograd.grad(total, [each for _, each in model.named_parameters()])
    expected = torch.cat([each.flatten() for each in gradients])

    before = flat(model)
    step = stepper(model, name)
    evaluated = data.loader("train", 4, CONTEXT, sequential=True)
    value, count = step.evaluate(evaluated, evaluated.batches_per_epoch)
    assert count == 6 and value / 6 == pytest.approx(total.item(), rel=1e-5)
    result = step.run(data.loader("train", 6, CONTEXT))
    assert result.loss == pytest.approx(total.item(), rel=1e-5)
    assert (before - flat(model) - expected).norm() < 1e-4 * expected.norm()
    if name in ("dpo", "ipo"):
        assert result.reward_margin == pytest.approx(sum(margins) / 6, rel=1e-4)
        assert result.reward_accuracy == sum(each > 0 for each in margins) / 6


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_a_run_learns_what_is_preferred(name: str, tmp_path: Path) -> None:
    run = finetune(
        fresh(), pairs(tmp_path / "a.jsonl"), tmp_path / "run", objective=name, steps=15,
        display=Display(silent=True), **QUICK,
    )  # fmt: skip
    if name == "dpo":
        assert run.summary["loss_before"] == pytest.approx(0.693147, abs=1e-4)
    assert run.summary["loss_after"] < run.summary["loss_before"]
    first, last = run.history[0], run.history[-1]
    assert last["reward_accuracy"] == 1.0 and last["reward_margin"] > first["reward_margin"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resumed_run_ends_with_the_same_bytes(method: str, tmp_path: Path) -> None:
    data = pairs(tmp_path / "a.jsonl")
    fresh().save_pretrained(tmp_path / "base")
    given = {
        **QUICK, "steps": 6, "save_every": 2, "data": [str(data)], "objective": "dpo",
        "model": str(tmp_path / "base"), "method": method,
    }  # fmt: skip
    whole, parts = whole_and_resumed(tmp_path, given)
    assert whole.summary["loss_after"] == parts.summary["loss_after"]


def test_pairs_stay_together(tmp_path: Path) -> None:
    model = fresh()
    data = opened(pairs(tmp_path / "a.jsonl"), model, val_fraction=0.1)
    assert (data.train_samples, data.val_samples, data.packed) == (54, 6, False)
    data.references = {"train": [float(n) for n in range(54)]}
    loader = data.loader("train", 3, CONTEXT, seed=1)
    seen = set()
    for _ in range(loader.batches_per_epoch):
        ids, labels, segments = loader.next()
        assert ids.shape[0] == 6 and segments is None
        for row in range(0, 6, 2):
            prompt = (labels[row] != -100).nonzero()[0]
            assert torch.equal(ids[row, :prompt], ids[row + 1, :prompt])
            assert not torch.equal(ids[row], ids[row + 1])
            seen.add(tuple(ids[row].tolist()))
    assert loader.batches_per_epoch == 9 and len(seen) >= 20


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    given = {**QUICK, "steps": 1, "display": Display(silent=True)}
    with pytest.raises(DataError, match="a.jsonl, line 1: no pair of answers: expected chosen"):
        finetune(fresh(), path, tmp_path / "run", objective="dpo", **given)
    with pytest.raises(ConfigError, match="beta=0.5 belongs to objectives dpo, ipo"):
        finetune(fresh(), path, tmp_path / "run", beta=0.5, **given)
    data = opened(pairs(path), fresh())
    data.form = "turns"
    with pytest.raises(DataError, match="needs the losses by the model that the run began with"):
        stepper(fresh(), "dpo").run(data.loader("train", 4, CONTEXT))
    data.form = "pairs"
    with pytest.raises(DataError, match="there are 2 reference losses for"):
        data.loader("train", 4, CONTEXT).set_reference([1.0, 2.0])
    with pytest.raises(ConfigError, match="preference"):
        stepper(fresh(), "magic")


def judged(path: Path, count: int = 30) -> Path:
    records = [
        {
            "prompt": f"Say {n}.",
            "completion": " ok" * (n % 4 + 1) if n % 3 else " no!",
            "label": n % 3 > 0,
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def test_kto_is_the_formula(tmp_path: Path) -> None:
    """TRL 1.16, KTOTrainer: the drift is the mean log ratio of answers to other questions, of which
    no gradient is taken; at least 0."""
    model, begun = fresh(), fresh(seed=1)
    data = opened(judged(tmp_path / "a.jsonl", 9), model, form="judged", val_fraction=0.0)
    samples = data.samples["train"]
    assert (data.train_samples, len(samples)) == (9, 18)
    for before, mine, other in zip([*samples[-2::2], *samples[::2]], samples[::2], samples[1::2]):
        assert other.ids == mine.asked + before.ids[len(before.asked) :]
    step = stepper(begun, "kto")
    plain = data.loader("train", 5, CONTEXT, sequential=True)
    reference = step.row_losses(plain, plain.batches_per_epoch)[:18]
    with torch.no_grad():
        assert reference == pytest.approx([-summed(begun, s).item() for s in samples], rel=1e-5)
    for sign in (1, -1):  # of the drift: the second time it would be below zero
        mine = torch.stack([summed(model, s) for s in samples])
        away = sign * 3.0 - (mine.detach() + torch.tensor(reference))[1::2].mean().item()
        data.references = {"train": [each + away for each in reference]}
        ratios = mine + torch.tensor(data.references["train"])
        drift = ratios[1::2].mean().detach().clamp(min=0)
        assert (drift > 0) == (sign > 0)
        good = torch.tensor([each.good for each in samples[::2]])
        at = BETA * torch.where(good, ratios[::2] - drift, drift - ratios[::2])
        weight = torch.where(good, WEIGHTS["desirable_weight"], WEIGHTS["undesirable_weight"])
        total = (weight * (1 - torch.sigmoid(at))).mean()
        gradients = torch.autograd.grad(total, [each for _, each in model.named_parameters()])
        expected = torch.cat([each.flatten() for each in gradients])

        before = flat(model)
        step = stepper(model, "kto")
        value, count = step.evaluate(data.loader("train", 9, CONTEXT, sequential=True), 1)
        assert count == 9 and value / 9 == pytest.approx(total.item(), rel=1e-5)
        result = step.run(data.loader("train", 9, CONTEXT))
        assert result.loss == pytest.approx(total.item(), rel=1e-5)
        assert (before - flat(model) - expected).norm() < 1e-4 * expected.norm()
        assert result.reward_accuracy == pytest.approx((at > 0).double().mean().item())
        rewards = BETA * torch.where(good, ratios[::2], -ratios[::2])
        assert result.reward_margin == pytest.approx(rewards.mean().item(), rel=1e-4)
        with torch.no_grad():
            for _, each in model.named_parameters():
                each.copy_(before[: each.numel()].view_as(each))
                before = before[each.numel() :]


def test_a_run_learns_what_is_liked(tmp_path: Path) -> None:
    said = Display(silent=True)
    notes: list[str] = []
    said.note = notes.append  # type: ignore[method-assign]
    run = finetune(
        fresh(), judged(tmp_path / "a.jsonl"), tmp_path / "run", objective="kto", steps=15,
        display=said, **QUICK,
    )  # fmt: skip
    assert run.summary["loss_before"] == pytest.approx(0.5, abs=1e-4)
    assert run.summary["loss_after"] < run.summary["loss_before"]
    assert run.history[-1]["reward_margin"] > run.history[0]["reward_margin"]
    said_so = r"\d+ training answers were liked, \d+ were not. To balance them, give a desirable"
    assert any(re.match(said_so, each) for each in notes)


def test_pairs_are_answers_that_were_liked_and_not(tmp_path: Path) -> None:
    model = fresh()
    data = opened(pairs(tmp_path / "a.jsonl", 6), model, form="judged", val_fraction=0.0)
    samples = data.samples["train"]
    assert [each.good for each in samples[::2]] == [True, False] * 6
    for mine, other in zip(samples[::2], samples[1::2]):
        assert other.asked == mine.asked and other.good is None
    texts = {model.tokenizer.decode(each.ids[len(each.asked) :]) for each in samples[3::4]}
    assert not any(f"{n}" in text for n, text in enumerate(texts) if n > 3)  # of others' answers
    with pytest.raises(DataError, match="learn what is liked with objective kto"):
        opened(judged(tmp_path / "b.jsonl"), model, form="turns")
    lines = tmp_path / "c.jsonl"
    lines.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError, match="c.jsonl, line 1: no answer that people judged"):
        opened(lines, model, form="judged")


def test_what_pairs_take_is_known_before(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path / "a.jsonl"), fresh(), val_fraction=0.0)
    longest = max(len(each.ids) for each in data.samples["train"]) - 1
    assert data.shape(4, CONTEXT) == (8, longest) and longest < CONTEXT
    assert data.rows_an_epoch == 30
