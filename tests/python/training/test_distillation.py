"""Learning from a larger model: divergences and gradients are the formulas', the loss is that of
the answers' places, and runs come closer to their teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.training.finetune_runs import once, whole_and_resumed
from tests.python.training.preference_cases import CONTEXT, answers, flat, fresh, stepper

from omnima import Model, Tokenizer
from omnima.data import open_conversations
from omnima.errors import ConfigError, OmnimaError
from omnima.training.display import Display
from omnima.training.finetune import finetune
from omnima.training.teacher import open_teacher

QUICK: dict[str, Any] = {
    "context": CONTEXT, "batch_size": 4, "precision": "fp32", "val_fraction": 0.2, "eval_every": 5,
    "lr": 3e-3, "objective": "distill",
}  # fmt: skip


def teacher_of(model: Any) -> Any:
    made = Model.from_preset(
        "nima", vocab_size=model.config.vocab_size, max_position_embeddings=128, seed=7,
        hidden_size=96, num_hidden_layers=3, logit_softcap=4.0, initializer_range=0.2,
    )  # fmt: skip
    made.tokenizer = model.tokenizer
    return made


def divergence(kind: str, mine: torch.Tensor, theirs: torch.Tensor, cold: float) -> torch.Tensor:
    """TRL 1.16, GKDTrainer.generalized_jsd_loss with beta 0, 1 and 0.5."""
    p, q = (torch.log_softmax(each / cold, -1) for each in (mine, theirs))
    if kind == "forward":
        return (q.exp() * (q - p)).sum(-1)
    if kind == "reverse":
        return (p.exp() * (p - q)).sum(-1)
    m = ((p.exp() + q.exp()) / 2).log()
    return 0.5 * ((q.exp() * (q - m)).sum(-1) + (p.exp() * (p - m)).sum(-1))


@pytest.mark.parametrize("kind", ["forward", "reverse", "middle"])
@pytest.mark.parametrize("packed", [True, False])
def test_divergences_are_the_formulas(kind: str, packed: bool, tmp_path: Path) -> None:
    model = fresh()
    teacher = teacher_of(model)
    path = answers(tmp_path / "a.jsonl", 6)
    data = open_conversations(path, model.tokenizer, CONTEXT, packed=packed, val_fraction=0.0)
    parts = []
    for sample in data.samples["train"]:
        ids = torch.tensor([sample.ids])
        with torch.no_grad():
            theirs = teacher(ids)[0, :-1]
        places = torch.tensor(sample.supervised[1:], dtype=torch.bool)
        parts.append(divergence(kind, model(ids)[0, :-1], theirs, 1.7)[places])
    loss = torch.cat(parts).mean()
    gradients = torch.autograd.grad(loss, [each for _, each in model.named_parameters()])
    expected = torch.cat([each.flatten() for each in gradients])
    before = flat(model)
    step = stepper(model, "", divergence=kind, temperature=1.7)
    with pytest.raises(ConfigError, match="No teacher: give one with set_teacher"):
        step.run(data.loader("train", 6, CONTEXT))
    step.set_teacher(teacher.core)
    whole = data.loader("train", 6, CONTEXT, sequential=True)
    value, count = step.evaluate(whole, whole.batches_per_epoch)
    assert count == data.train_supervised
    assert value / count == pytest.approx(loss.item(), rel=1e-5)
    result = step.run(data.loader("train", whole.rows_per_epoch, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert (before - flat(model) - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_run_comes_closer_to_its_teacher(method: str, tmp_path: Path) -> None:
    base = fresh()
    teacher_of(base).save_pretrained(tmp_path / "teacher")
    base.save_pretrained(tmp_path / "base")
    path = answers(tmp_path / "a.jsonl", 20)
    given = {
        **QUICK, "steps": 8, "save_every": 2, "data": [str(path)], "method": method,
        "model": str(tmp_path / "base"), "teacher": str(tmp_path / "teacher"),
    }  # fmt: skip
    whole, _ = whole_and_resumed(tmp_path, given)
    assert whole.summary["loss_after"] < whole.summary["loss_before"]
    fresh(seed=5).save_pretrained(tmp_path / "teacher")  # another one is no longer the same run
    once(tmp_path / "other", given, stop_after=3)
    teacher_of(base).save_pretrained(tmp_path / "teacher")
    with pytest.raises(OmnimaError, match="teacher"):
        once(tmp_path / "other", given, resume=True)


def test_in_bfloat16_it_is_about_the_same(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        model = fresh()
        data = open_conversations(answers(tmp_path / "a.jsonl", 6), model.tokenizer, CONTEXT)
        step = stepper(model, "", divergence="forward", precision=precision)
        step.set_teacher(teacher_of(model).core)
        losses.append(step.run(data.loader("train", 2, CONTEXT)).loss)
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize(
    ("precision", "to"), [("fp32", None), ("bf16", None), ("fp32", "nf4"), ("bf16", "int8")]
)
def test_a_teacher_lies_as_the_run_computes(precision: str, to: str | None, tmp_path: Path) -> None:
    model = fresh()
    teacher = teacher_of(model)
    if to is not None:
        teacher.quantize(to, method="rtn")
    teacher.save_pretrained(tmp_path / "teacher")
    found = open_teacher(str(tmp_path / "teacher"), model, CONTEXT, "cpu", precision)
    formats = {format for _, format, _ in found.core.held}
    if to is not None:
        assert any(each.startswith(to) for each in formats)
    else:
        assert formats == ({"bf16"} if precision == "bf16" else set())
    numbers = sum(each.numel() for _, each in found.named_parameters())
    if precision == "bf16" or to is not None:
        held = sum(blocks.numel() for _, _, blocks in found.core.held)
        assert 4 * numbers + held < 2.1 * teacher.num_parameters
    # It says what one in numbers says in this precision.
    twin = teacher_of(model)
    whole = dict(found._numbers())
    with torch.no_grad():
        for name, each in twin.named_parameters():
            each.copy_(whole[name])
    data = open_conversations(answers(tmp_path / "a.jsonl", 6), model.tokenizer, CONTEXT)
    losses, weights = [], []
    for each in (found, twin):
        student = fresh()
        step = stepper(student, "", divergence="forward", precision=precision)
        step.set_teacher(each.core)
        losses.append(step.run(data.loader("train", 2, CONTEXT)).loss)
        weights.append(flat(student))
    if precision == "bf16":
        assert losses[0] == losses[1] and torch.equal(*weights)
    else:
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_runs_learn_from_teachers_in_blocks_and_in_bfloat16(tmp_path: Path) -> None:
    base = fresh()
    path = answers(tmp_path / "a.jsonl", 20)
    teacher = teacher_of(base)
    teacher.save_pretrained(tmp_path / "plain")
    teacher.quantize("int8")
    teacher.save_pretrained(tmp_path / "blocks")
    lost = {}
    for name, precision in (("plain", "fp32"), ("plain", "bf16"), ("blocks", "bf16")):
        given = {**QUICK, "precision": precision, "steps": 8, "teacher": str(tmp_path / name)}
        out = tmp_path / f"{name}-{precision}"
        run = finetune(fresh(), path, out, display=Display(silent=True), **given)
        assert run.summary["loss_after"] < run.summary["loss_before"]
        lost[name, precision] = run.summary["loss_after"]
    assert len(set(lost.values())) == 3
    first, *others = lost.values()
    assert others == pytest.approx([first] * 2, rel=0.05)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = fresh()
    path = answers(tmp_path / "a.jsonl", 6)
    given = {**QUICK, "steps": 1, "display": Display(silent=True)}
    with pytest.raises(ConfigError, match="learns from a larger model: give a teacher"):
        finetune(model, path, tmp_path / "run", **given)
    with pytest.raises(ConfigError, match="belongs to objective distill"):
        finetune(model, path, tmp_path / "run", **{**given, "objective": "sft"}, teacher="t")
    other = teacher_of(model)
    other.tokenizer = Tokenizer.train(["some words of another kind"] * 9, "char")
    other.resize(max(other.config.vocab_size, other.tokenizer.vocab_size))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="the same vocabulary only"):
        finetune(model, path, tmp_path / "run", **given, teacher=str(tmp_path / "other"))
    wide = teacher_of(model)
    wide.resize(model.config.vocab_size + 5)
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(ConfigError, match="bring the smaller one up with model.resize"):
        finetune(model, path, tmp_path / "run", **given, teacher=str(tmp_path / "wide"))
    rewarding = fresh().with_reward_head()
    rewarding.save_pretrained(tmp_path / "rewarding")
    with pytest.raises(ConfigError, match="does not predict next tokens"):
        finetune(model, path, tmp_path / "run", **given, teacher=str(tmp_path / "rewarding"))
    with pytest.raises(ConfigError, match="serves a step with a divergence"):
        stepper(model, "").set_teacher(wide.core)
    with pytest.raises(ConfigError, match="both must have the same vocabulary"):
        stepper(model, "", divergence="reverse").set_teacher(wide.core)
    with pytest.raises(ConfigError, match="divergence"):
        stepper(model, "", divergence="sideways")
