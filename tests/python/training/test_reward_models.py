"""Reward models: the loss is Bradley and Terry's at the last token, runs learn to agree with
people, and transformers loads them with the same rewards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.python.training.finetune_runs import whole_and_resumed
from tests.python.training.preference_cases import CONTEXT, flat, fresh, opened, pairs, stepper

import omnima
from omnima import Model
from omnima.errors import ConfigError, DataError, OmnimaError
from omnima.evaluation.preferences import judge_pairs
from omnima.generation.rewards import rewards
from omnima.tokenizers.padding import end_of_reading
from omnima.training.display import Display
from omnima.training.finetune import finetune

QUICK: dict[str, Any] = {
    "context": CONTEXT, "batch_size": 4, "precision": "fp32", "val_fraction": 0.2, "eval_every": 5,
    "lr": 3e-3, "objective": "reward",
}  # fmt: skip


def marked(data: Any) -> list[list[int]]:
    return [each.ids[:-1] for each in data.samples["train"]]


@pytest.mark.parametrize("center", [0.0, 0.05])
def test_the_loss_is_bradley_and_terrys(center: float, tmp_path: Path) -> None:
    model = fresh().with_reward_head(seed=3)
    with torch.no_grad():  # rewards of some size
        dict(model.named_parameters())["score.weight"].mul_(20)
    data = opened(pairs(tmp_path / "a.jsonl", 6), model, form="scored", val_fraction=0.0)
    given = torch.stack([model.core.rewards(torch.tensor([ids]))[0, -1] for ids in marked(data)])
    chosen, rejected = given[::2], given[1::2]
    loss = -F.logsigmoid(chosen - rejected).mean() + center * ((chosen + rejected) ** 2).mean()
    gradients = torch.autograd.grad(loss, [each for _, each in model.named_parameters()])
    expected = torch.cat([each.flatten() for each in gradients])
    before = flat(model)
    step = stepper(model, "reward", center_rewards=center)
    value, count = step.evaluate(data.loader("train", 6, CONTEXT, sequential=True), 1)
    assert count == 6 and value / 6 == pytest.approx(loss.item(), rel=1e-5)
    result = step.run(data.loader("train", 6, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert (before - flat(model) - expected).norm() < 1e-5 * expected.norm()
    assert result.reward_margin == pytest.approx((chosen - rejected).mean().item(), rel=1e-4)
    assert result.reward_accuracy == (chosen > rejected).double().mean().item()


def test_a_run_learns_to_agree_with_people(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    base = fresh()
    path = pairs(tmp_path / "a.jsonl")
    out = tmp_path / "run"
    run = finetune(base, path, out, steps=15, display=Display(silent=True), **QUICK)
    assert run.summary["loss_after"] < run.summary["loss_before"]
    assert not base.config.reward_head  # a copy has the other head
    model = Model.from_pretrained(out)
    assert model.config.reward_head and model.num_parameters == base.num_parameters + 96
    score = judge_pairs(model, path)
    assert score.pairs == 30 and score.accuracy == 1.0 and score.margin > 0

    theirs = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    assert theirs.config.num_labels == 1
    texts = ["Yes.", "### User:\nSay 1.", [{"role": "user", "content": "Say 2."}]]
    ids = [list(model.tokenizer.encode(text, add_bos=True)) for text in texts[:2]]
    ids = [[*each, model.tokenizer.eos_id] for each in ids]
    with torch.no_grad():
        expected = [theirs(torch.tensor([each])).logits.item() for each in ids]
    assert model.reward(texts)[:2] == pytest.approx(expected, abs=1e-5)
    card = (out / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card and "text-classification" in card

    command = [sys.executable, "-m", "omnima", "reward", str(out), "--json"]
    told = subprocess.run(
        [*command, "--data", str(path)], capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout) == pytest.approx(score.as_dict())
    told = subprocess.run(command, input="Yes.\n", capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["rewards"] == pytest.approx(expected[:1], abs=1e-5)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = pairs(tmp_path / "a.jsonl")
    fresh().save_pretrained(tmp_path / "base")
    given = {**QUICK, "steps": 6, "save_every": 2, "data": [str(data)]}
    given["model"] = str(tmp_path / "base")
    whole_and_resumed(tmp_path, given)


@pytest.mark.filterwarnings("ignore:No architecture of transformers")
@pytest.mark.parametrize("changes", [{"tie_word_embeddings": False}, {"norm": "layer_norm"}])
def test_other_shapes_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    base = Model.from_preset("nima", vocab_size=64, max_position_embeddings=32, **changes)
    model = base.with_reward_head()
    assert model.num_parameters == model.config.num_parameters
    model.save_pretrained(tmp_path / "m")
    again = Model.from_pretrained(tmp_path / "m")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.core.rewards(ids), again.core.rewards(ids))


def test_padding_is_not_read() -> None:
    assert end_of_reading([4, 2, 2], 2) == 1 and end_of_reading([2, 2], 2) == 1
    assert end_of_reading([4, 2, 2], None) == 3


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl")
    given = {**QUICK, "steps": 1, "display": Display(silent=True)}
    with pytest.raises(ConfigError, match="objective reward trains a new head"):
        finetune(fresh(), path, tmp_path / "run", method="lora", **given)
    with pytest.raises(ConfigError, match="A reward model cannot write"):
        finetune(fresh(), path, tmp_path / "run", samples=1, **given)
    model = fresh().with_reward_head()
    with pytest.raises(ConfigError, match="objective dpo needs one that writes"):
        finetune(model, path, tmp_path / "run", **{**given, "objective": "dpo"})
    with pytest.raises(ConfigError, match="has a reward head already"):
        model.with_reward_head()
    with pytest.raises(ConfigError, match="cannot write"):
        model.generate("Hi", max_new_tokens=2)
    with pytest.raises(ConfigError, match="has no head for tokens"):
        model(torch.tensor([[1, 2]]))
    with pytest.raises(ConfigError, match="has no head for tokens"):
        model.loss(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    with pytest.raises(ConfigError, match="llama.cpp cannot run it"):
        model.save_gguf(tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match="is not quantized"):
        model.quantize("int8")
    with pytest.raises(ConfigError, match="that of a model with a reward head"):
        stepper(fresh(), "reward").run(opened(path, fresh()).loader("train", 2, CONTEXT))
    with pytest.raises(ConfigError, match="no reward head: train one with"):
        fresh().reward(["Hi"])
    with pytest.raises(DataError, match="expected a text, a list of messages"):
        rewards(model, [3.5])
    with pytest.raises(DataError, match="the model's context holds 128"):
        rewards(model, ["word " * 100])
    with pytest.raises(ConfigError, match="reward_head reads a text at its last token"):
        omnima.ModelConfig(**{**model.config.to_dict(), "prediction_heads": 1})
    labels = tmp_path / "labels"
    model.save_pretrained(labels)
    config = json.loads((labels / "config.json").read_text())
    config["id2label"] = {"0": "bad", "1": "good"}
    (labels / "config.json").write_text(json.dumps(config))
    with pytest.raises(OmnimaError, match="a classifier of 2 labels is not supported"):
        Model.from_pretrained(labels)
