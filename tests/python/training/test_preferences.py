"""Pairs of answers: losses and gradients are those of the published formulas (as TRL has them), the
reference is measured once, and runs learn to prefer what people preferred."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from omnima import Model, Tokenizer, _core
from omnima.data import open_conversations
from omnima.data.conversations import ConversationData
from omnima.errors import ConfigError, DataError
from omnima.tokenizers.chat_default import ensure_template
from omnima.training.display import Display
from omnima.training.finetune import finetune, run_recipe
from omnima.training.finetune_recipe import FineTuneRecipe

CONTEXT = 96
BETA, MARGIN = 0.3, 0.5
QUICK: dict[str, Any] = {
    "context": CONTEXT,
    "batch_size": 4,
    "precision": "fp32",
    "val_fraction": 0.2,
    "eval_every": 5,
    "lr": 3e-3,
}


def pairs(path: Path, count: int = 30) -> Path:
    records = [
        {
            "instruction": f"Say {n}.",
            "chosen": "Of course: " + "ok " * (n % 4 + 1) + str(n),
            "rejected": "No" + "!" * (n % 5 + 1),
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def fresh(seed: int = 0) -> Any:
    tokenizer = Tokenizer.train(["Say 1. Of course"], "byte")
    ensure_template(tokenizer)
    made = Model.from_preset(
        "nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=128, seed=seed
    )
    made.tokenizer = tokenizer
    return made


def opened(path: Path, model: Any, **changes: Any) -> ConversationData:
    return open_conversations(path, model.tokenizer, CONTEXT, paired=True, **changes)


def summed(model: Any, sample: Any) -> torch.Tensor:
    """The log probability of a sample's answer; differentiable."""
    ids = torch.tensor(sample.ids)
    labels = torch.where(torch.tensor(sample.supervised, dtype=torch.bool), ids, -100)
    loss: torch.Tensor = model.loss(ids[None, :-1], labels[None, 1:])
    return -loss * sample.supervised_tokens


def formula(name: str, mine: torch.Tensor, other: torch.Tensor, reference: Any, sizes: Any) -> Any:
    """TRL 1.16: DPOTrainer (sigmoid, ipo), CPOTrainer (simpo), ORPOTrainer (the answer alone)."""
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
    return -mean - BETA * F.logsigmoid(odds)


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    return torch.log(-torch.expm1(x))


def stepper(model: Any, name: str) -> Any:
    """A step whose update is the gradient itself: plain descent with a rate of one."""
    options = _core.StepOptions()
    plain = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    plain |= {"lr": 1.0, "clip_norm": 0.0, "schedule": "constant", "total_steps": 10}
    plain |= {"preference": name, "preference_beta": BETA, "preference_margin": MARGIN}
    for key, value in plain.items():
        setattr(options, key, value)
    return _core.TrainStep(model.core, options)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for _, each in model.named_parameters()])


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

    def once(out: Path, **how: Any) -> Any:
        recipe = FineTuneRecipe.from_layers({**given, "out": str(out)})
        return run_recipe(recipe, display=Display(silent=True), **how)

    whole = once(tmp_path / "whole")
    once(tmp_path / "parts", stop_after=3)
    parts = once(tmp_path / "parts", resume=True)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes()
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
    data.paired = False
    with pytest.raises(DataError, match="needs the losses by the model that the run began with"):
        stepper(fresh(), "dpo").run(data.loader("train", 4, CONTEXT))
    data.paired = True
    with pytest.raises(DataError, match="there are 2 reference losses for"):
        data.loader("train", 4, CONTEXT).set_reference([1.0, 2.0])
    with pytest.raises(ConfigError, match="preference"):
        stepper(fresh(), "magic")
