"""Virtual tokens learn from a larger model and from pairs: loss and gradient are those of the
formulas, over the places of the text alone, and runs end with the same bytes when resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.python.training.finetune_runs import whole_and_resumed
from tests.python.training.preference_cases import (
    BETA,
    CONTEXT,
    answers,
    fresh,
    opened,
    pairs,
    stepper,
)

from omnima import Model
from omnima.data import open_conversations
from omnima.errors import ConfigError
from omnima.training.display import Display
from omnima.training.finetune import finetune

KINDS = pytest.mark.parametrize("kind", ["prompt", "prefix"])
VIRTUAL = 5
QUICK: dict[str, Any] = {
    "context": CONTEXT, "batch_size": 4, "precision": "fp32", "val_fraction": 0.2, "eval_every": 5,
    "steps": 8, "save_every": 2, "virtual_tokens": VIRTUAL, "lr": 3e-2,
}  # fmt: skip


def adapted(kind: str) -> Any:
    """A model with virtual tokens of some size: a prefix of zeros would have gradients of none."""
    model = fresh()
    model.add_adapter(kind, virtual_tokens=VIRTUAL)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, each in model.adapter_parameters():
            each.add_(0.3 * torch.randn(each.shape, generator=draw))
    return model


def teacher_of(model: Any) -> Any:
    made = Model.from_preset(
        "nima", vocab_size=model.config.vocab_size, max_position_embeddings=128, seed=7,
        hidden_size=96, num_hidden_layers=3, initializer_range=0.2,
    )  # fmt: skip
    made.tokenizer = model.tokenizer
    return made


def flat(model: Any) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for _, each in model.adapter_parameters()])


def gradient_of(loss: torch.Tensor, model: Any) -> torch.Tensor:
    found = torch.autograd.grad(loss, [each for _, each in model.adapter_parameters()])
    return torch.cat([each.flatten() for each in found])


@KINDS
@pytest.mark.parametrize("packed", [True, False])
def test_what_a_teacher_says_is_learned_in_front_of_the_text(
    kind: str, packed: bool, tmp_path: Path
) -> None:
    model = adapted(kind)
    teacher = teacher_of(model)  # reads the text without virtual tokens
    path = answers(tmp_path / "a.jsonl", 6)
    data = open_conversations(path, model.tokenizer, CONTEXT, packed=packed, val_fraction=0.0)
    parts = []
    for sample in data.samples["train"]:
        ids, places = torch.tensor([sample.ids]), torch.tensor(sample.supervised[1:]) > 0
        with torch.no_grad():
            theirs = torch.log_softmax(teacher(ids)[0, :-1], -1)
        mine = torch.log_softmax(model(ids)[0, :-1], -1)
        parts.append((theirs.exp() * (theirs - mine)).sum(-1)[places])
    loss = torch.cat(parts).mean()
    expected, before = gradient_of(loss, model), flat(model)
    step = stepper(model, "", divergence="forward", temperature=1.0)
    step.set_teacher(teacher.core)
    whole = data.loader("train", 6, CONTEXT, sequential=True)
    value, count = step.evaluate(whole, whole.batches_per_epoch)
    assert count == data.train_supervised and value / count == pytest.approx(loss.item(), rel=1e-5)
    result = step.run(data.loader("train", whole.rows_per_epoch, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert expected.norm() > 1e-3
    assert (before - flat(model) - expected).norm() < 1e-4 * expected.norm()


def mean_loss(model: Any, ids: list[int], learned: list[int]) -> torch.Tensor:
    row = torch.tensor([ids])
    logits, places = model(row)[0, :-1], torch.tensor(learned[1:]) > 0
    return F.cross_entropy(logits[places], row[0, 1:][places])


def log_odds(loss: torch.Tensor) -> torch.Tensor:
    return -loss - torch.log(-torch.expm1(-loss))


@KINDS
def test_pairs_are_learned_in_front_of_the_text(kind: str, tmp_path: Path) -> None:
    """TRL 1.16, ORPOTrainer: the odds of both answers, and the better one imitated with what was
    asked."""
    model = adapted(kind)
    data = opened(pairs(tmp_path / "a.jsonl", 6), model, val_fraction=0.0)
    samples = data.samples["train"]
    odds, imitated, tokens = torch.zeros(()), torch.zeros(()), 0
    for good, bad in zip(samples[::2], samples[1::2]):
        mine, other = (mean_loss(model, each.ids, each.supervised) for each in (good, bad))
        odds = odds - BETA * F.logsigmoid(log_odds(mine) - log_odds(other)) / 6
        said = good.ids[: len(good.ids) - good.supervised[::-1].index(1)]
        imitated = imitated + mean_loss(model, said, [1] * len(said)) * (len(said) - 1)
        tokens += len(said) - 1
    loss = odds + imitated / tokens
    expected, before = gradient_of(loss, model), flat(model)
    step = stepper(model, "orpo")
    value, count = step.evaluate(data.loader("train", 6, CONTEXT, sequential=True), 1)
    assert count == 6 and value / 6 == pytest.approx(loss.item(), rel=1e-5)
    result = step.run(data.loader("train", 6, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert expected.norm() > 1e-3
    assert (before - flat(model) - expected).norm() < 1e-4 * expected.norm()


@KINDS
@pytest.mark.parametrize("objective", ["distill", "orpo"])
def test_runs_get_better_and_end_with_the_same_bytes(
    objective: str, kind: str, tmp_path: Path
) -> None:
    base = fresh()
    base.save_pretrained(tmp_path / "base")
    given = {**QUICK, "objective": objective, "method": kind, "model": str(tmp_path / "base")}
    if objective == "distill":
        teacher_of(base).save_pretrained(tmp_path / "teacher")
        given |= {"teacher": str(tmp_path / "teacher")}
        given |= {"data": [str(answers(tmp_path / "a.jsonl", 20))]}
    else:
        given |= {"data": [str(pairs(tmp_path / "a.jsonl"))]}
    whole, parts = whole_and_resumed(tmp_path, given)
    assert whole.summary["loss_after"] < whole.summary["loss_before"]
    assert whole.summary["loss_after"] == parts.summary["loss_after"]
    again = fresh()
    again.load_adapter(whole.path)
    assert again.context == 128 - VIRTUAL


@KINDS
def test_a_teacher_needs_room_for_the_text_alone(kind: str, tmp_path: Path) -> None:
    model = fresh()
    teacher = Model.from_preset(
        "nima", vocab_size=model.config.vocab_size, max_position_embeddings=CONTEXT
    )
    teacher.tokenizer = model.tokenizer
    teacher.save_pretrained(tmp_path / "teacher")
    given = {**QUICK, "objective": "distill", "method": kind, "steps": 1}
    given |= {"teacher": str(tmp_path / "teacher"), "display": Display(silent=True)}
    path = answers(tmp_path / "a.jsonl", 12)
    finetune(model, path, tmp_path / "run", **given)  # CONTEXT tokens of text
    with pytest.raises(ConfigError, match="but the teacher's context holds 96"):
        finetune(fresh(), path, tmp_path / "more", **{**given, "context": CONTEXT + 1})
