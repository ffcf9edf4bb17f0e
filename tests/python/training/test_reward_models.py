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
    whole, parts = whole_and_resumed(tmp_path, given)
    after = whole.summary["loss_after"]
    assert parts.summary["loss_after"] == after < whole.summary["loss_before"]


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


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "adalora", "bottleneck"])
def test_gradients_of_an_adapter_and_its_head_are_autograds(method: str, tmp_path: Path) -> None:
    model = fresh().with_reward_head(seed=3)
    model.add_adapter(method, **({} if method == "ia3" else {"rank": 2}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, each in model.adapter_parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    learning = dict(model.adapter_parameters())
    assert "score.weight" in learning
    assert model.num_trainable_parameters == sum(each.numel() for each in learning.values())
    data = opened(pairs(tmp_path / "a.jsonl", 6), model, form="scored", val_fraction=0.0)
    given = torch.stack([model.core.rewards(torch.tensor([ids]))[0, -1] for ids in marked(data)])
    loss = -F.logsigmoid(given[::2] - given[1::2]).mean()
    gradients = torch.autograd.grad(loss, list(learning.values()))
    expected = torch.cat([each.flatten() for each in gradients])
    assert gradients[-1].norm() > 1e-3

    def parameters() -> torch.Tensor:
        return torch.cat([each.detach().flatten() for _, each in model.adapter_parameters()])

    before, base = parameters(), flat(model)
    step = stepper(model, "reward")
    result = step.run(data.loader("train", 6, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert torch.equal(flat(model), base)  # its own head, too
    if method != "adalora":  # whose penalty moves it as well
        assert (before - parameters() - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("method", ["lora", "dora", "vera", "qlora"])
def test_an_adapter_and_a_head_learn_to_agree_with_people(method: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    fresh().save_pretrained(tmp_path / "base")
    path = pairs(tmp_path / "a.jsonl")
    given = {**QUICK, "lr": 1e-2, "method": method, "rank": 4, "data": [str(path)], "steps": 12}
    given |= {"model": str(tmp_path / "base"), "save_every": 2}
    run, _ = whole_and_resumed(tmp_path, given)
    assert run.summary["loss_after"] < run.summary["loss_before"]
    told = json.loads((run.path / "adapter_config.json").read_text())
    assert told["task_type"] == "SEQ_CLS" and told["modules_to_save"] == ["score"]
    model = Model.from_pretrained(tmp_path / "base").with_reward_head(seed=9)  # another head
    model.load_adapter(run.path)
    assert judge_pairs(model, path).accuracy > 0.9
    if method == "qlora":
        return
    texts = ["Yes.", "### User:\nSay 1."]
    ids = [[*model.tokenizer.encode(text, add_bos=True), model.tokenizer.eos_id] for text in texts]
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=1, dtype=torch.float32
    )
    theirs = peft.PeftModel.from_pretrained(base, run.path).eval()
    with torch.no_grad():
        expected = [theirs(torch.tensor([each])).logits.item() for each in ids]
    found = model.reward(texts)
    assert found == pytest.approx(expected, abs=1e-5)

    merged = tmp_path / "merged"
    made = omnima.exporting.merge(tmp_path / "base", run.path, merged)
    assert made.max_logit_difference < 1e-4
    assert Model.from_pretrained(merged).reward(texts) == pytest.approx(found, abs=1e-4)
    model.merge_adapters()
    assert model.reward(texts) == pytest.approx(found, abs=1e-4)
    model.unmerge_adapters()
    assert model.reward(texts) == found


def test_an_adapter_of_peft_is_read_with_its_head(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    fresh().save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=1, dtype=torch.float32
    )
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", task_type="SEQ_CLS")
    theirs = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, each in theirs.named_parameters():
            if each.requires_grad:
                each.add_(0.1 * torch.randn(each.shape, generator=generator))
    theirs.save_pretrained(tmp_path / "adapter")
    model = Model.from_pretrained(tmp_path / "base").with_reward_head()
    model.load_adapter(tmp_path / "adapter", name="theirs")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = theirs.eval()(ids).logits.item()
        assert model.core.rewards(ids)[0, -1].item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match=r"model\.with_reward_head"):
        fresh().load_adapter(tmp_path / "adapter")
    model.add_adapter("lora", name="other", rank=2)
    with pytest.raises(ConfigError, match="used alone"):
        model.set_adapters({"theirs": 0.5, "other": 0.5})
    # One that never had a head keeps the model's own.
    plain = fresh()
    plain.add_adapter("lora", rank=2)
    plain.save_adapter(tmp_path / "plain")
    again = Model.from_pretrained(tmp_path / "base").with_reward_head(seed=4)
    own = dict(again.named_parameters())["score.weight"].detach().clone()
    again.load_adapter(tmp_path / "plain")
    assert torch.equal(dict(again.adapter_parameters("plain"))["score.weight"], own)
    damaged = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    damaged["modules_to_save"] = ["score"]
    (tmp_path / "plain" / "adapter_config.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="which adapter_config.json says was saved"):
        again.load_adapter(tmp_path / "plain", name="more")
    damaged["modules_to_save"] = ["lm_head"]
    (tmp_path / "plain" / "adapter_config.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match="modules_to_save is"):
        again.load_adapter(tmp_path / "plain", name="more")


def test_the_command_takes_an_adapter(tmp_path: Path) -> None:
    fresh().save_pretrained(tmp_path / "base")
    model = Model.from_pretrained(tmp_path / "base").with_reward_head(seed=3)
    model.add_adapter("lora", rank=2)
    model.save_adapter(tmp_path / "judge")
    command = [sys.executable, "-m", "omnima", "reward", str(tmp_path / "base"), "--json"]
    command += ["--adapter", str(tmp_path / "judge")]
    told = subprocess.run(command, input="Yes.\n", capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["rewards"] == pytest.approx(model.reward(["Yes."]), abs=1e-5)


def test_padding_is_not_read() -> None:
    assert end_of_reading([4, 2, 2], 2) == 1 and end_of_reading([2, 2], 2) == 1
    assert end_of_reading([4, 2, 2], None) == 3


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl")
    given = {**QUICK, "steps": 1, "display": Display(silent=True)}
    with pytest.raises(ConfigError, match="reads their ends: give lora"):
        finetune(fresh(), path, tmp_path / "run", method="prefix", **given)
    behind = fresh().with_reward_head()
    behind.add_adapter("prompt")
    with pytest.raises(ConfigError, match="A prompt of a reward model is not written"):
        behind.save_adapter(tmp_path / "prompt")
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
