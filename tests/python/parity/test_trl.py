"""Losses and gradients are those that TRL's own trainers compute of the same batch, in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.training.preference_cases import (
    BETA,
    CONTEXT,
    WEIGHTS,
    answers,
    flat,
    fresh,
    opened,
    pairs,
    stepper,
)

pytest.importorskip("trl", reason="trl is not installed: pip install 'trl>=1.16'")
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = 6


def in_transformers(model: Any, path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model.save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(path / "trl"),
        "per_device_train_batch_size": SIZE,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "gradient_checkpointing": False,
        "max_length": CONTEXT,
        "disable_tqdm": True,
        **more,
    }


def trainer_of(kind: Any, config: Any, model: Any, path: Path, records: Any, **more: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = Dataset.from_list(records)
    trainer = kind(model=model, args=config, train_dataset=data, processing_class=tokenizer, **more)
    trainer.model.train()
    return trainer


def gradient_of(theirs: Any, ours: Any, loss: torch.Tensor) -> torch.Tensor:
    """Of transformers' model, in the order of ours."""
    theirs.zero_grad()
    loss.backward()
    by_name = {name: each.grad for name, each in theirs.named_parameters()}
    return torch.cat([by_name[name].flatten() for name, _ in ours.named_parameters()])


def assert_same_step(
    model: Any, name: str, data: Any, loss: torch.Tensor, gradient: torch.Tensor, **more: Any
) -> Any:
    before = flat(model)
    result = stepper(model, name, **more).run(data.loader("train", SIZE, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert (before - flat(model) - gradient).norm() < 1e-5 * gradient.norm()
    return result


def halves(sample: Any) -> tuple[list[int], list[int]]:
    """What was asked, and the answer up to its end."""
    end = len(sample.ids) - sample.supervised[::-1].index(1)
    return sample.asked, sample.ids[len(sample.asked) : end]


def pair_records(samples: Any) -> list[dict[str, Any]]:
    found = []
    for chosen, rejected in zip(samples[::2], samples[1::2]):
        asked, answer = halves(chosen)
        found.append(
            {"prompt_ids": asked, "chosen_ids": answer, "rejected_ids": halves(rejected)[1]}
        )
    return found


WORDS = [{"prompt": "Say 1.", "chosen": " one", "rejected": " two"}] * SIZE


def with_reference(data: Any, begun: Any, name: str, size: int) -> None:
    plain = data.loader("train", SIZE, CONTEXT, sequential=True)
    data.references = {"train": stepper(begun, name).row_losses(plain, 1)[:size]}


@pytest.mark.parametrize(("name", "loss_type"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_pairs_as_dpo_trainer(name: str, loss_type: str, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    model, begun = fresh(), fresh(seed=1)
    theirs = in_transformers(model, tmp_path / "model")
    reference = in_transformers(begun, tmp_path / "begun")
    data = opened(pairs(tmp_path / "a.jsonl", SIZE), model, val_fraction=0.0)
    config = DPOConfig(**settings(tmp_path, beta=BETA, loss_type=loss_type))
    trainer = trainer_of(DPOTrainer, config, theirs, tmp_path / "model", WORDS, ref_model=reference)
    batch = trainer.data_collator(pair_records(data.samples["train"]))
    loss = trainer.compute_loss(trainer.model, batch)
    gradient = gradient_of(theirs, model, loss)
    with_reference(data, begun, name, 2 * SIZE)
    result = assert_same_step(model, name, data, loss, gradient)
    if name == "dpo":
        metrics = trainer._metrics["train"]
        assert result.reward_accuracy == pytest.approx(metrics["rewards/accuracies"][-1])
        assert result.reward_margin == pytest.approx(metrics["rewards/margins"][-1], rel=1e-3)


@pytest.mark.parametrize("name", ["orpo", "simpo"])
def test_pairs_as_orpo_and_cpo_trainer(name: str, tmp_path: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    model = fresh()
    theirs = in_transformers(model, tmp_path / "model")
    data = opened(pairs(tmp_path / "a.jsonl", SIZE), model, val_fraction=0.0)
    if name == "orpo":
        options = ORPOConfig(**settings(tmp_path, beta=BETA))
        trainer = trainer_of(ORPOTrainer, options, theirs, tmp_path / "model", WORDS)
    else:
        config = CPOConfig(
            **settings(tmp_path, beta=BETA, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.5)
        )
        trainer = trainer_of(CPOTrainer, config, theirs, tmp_path / "model", WORDS)
    features = []
    for record in pair_records(data.samples["train"]):
        asked = record["prompt_ids"]
        feature = {
            "prompt": "",
            "prompt_input_ids": asked,
            "prompt_attention_mask": [1] * len(asked),
        }
        for answer in ("chosen", "rejected"):
            ids = record[f"{answer}_ids"]
            feature[f"{answer}_input_ids"] = asked + ids
            feature[f"{answer}_attention_mask"] = [1] * len(asked + ids)
            feature[f"{answer}_labels"] = [-100] * len(asked) + ids
        features.append(feature)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(features))
    gradient = gradient_of(theirs, model, loss)
    assert_same_step(model, name, data, loss, gradient)


def test_judged_answers_as_kto_trainer(tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    model, begun = fresh(), fresh(seed=1)
    theirs = in_transformers(model, tmp_path / "model")
    reference = in_transformers(begun, tmp_path / "begun")
    lines = [
        {"prompt": f"Say {n}.", "completion": " ok" * (n % 4 + 1), "label": n % 3 > 0}
        for n in range(SIZE)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    data = opened(tmp_path / "a.jsonl", model, form="judged", val_fraction=0.0)
    config = KTOConfig(**settings(tmp_path, beta=BETA, **WEIGHTS))
    trainer = trainer_of(KTOTrainer, config, theirs, tmp_path / "model", lines, ref_model=reference)
    samples = data.samples["train"]
    features = [
        {
            "prompt_ids": halves(mine)[0],
            "completion_ids": halves(mine)[1],
            "KL_completion_ids": halves(other)[1],
            "label": mine.good,
        }
        for mine, other in zip(samples[::2], samples[1::2])
    ]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(features))
    gradient = gradient_of(theirs, model, loss)
    with_reference(data, begun, "kto", 2 * SIZE)
    assert_same_step(model, "kto", data, loss, gradient)


def test_rewards_as_reward_trainer(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    model = fresh().with_reward_head(seed=3)
    model.save_pretrained(tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    )
    data = opened(pairs(tmp_path / "a.jsonl", SIZE), model, form="scored", val_fraction=0.0)
    config = RewardConfig(**settings(tmp_path, center_rewards_coefficient=0.01))
    trainer = trainer_of(RewardTrainer, config, theirs, tmp_path / "model", WORDS)
    read = [each.ids[:-1] for each in data.samples["train"]]
    features = [
        {"chosen_ids": good, "rejected_ids": bad} for good, bad in zip(read[::2], read[1::2])
    ]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(features))
    gradient = gradient_of(theirs, model, loss)
    result = assert_same_step(model, "reward", data, loss, gradient, center_rewards=0.01)
    assert result.reward_accuracy == pytest.approx(trainer._metrics["train"]["accuracy"][-1])


@pytest.mark.parametrize(("kind", "beta"), [("forward", 0.0), ("reverse", 1.0), ("middle", 0.5)])
def test_divergences_as_gkd_trainer(kind: str, beta: float, tmp_path: Path) -> None:
    from trl.experimental.gkd import GKDTrainer

    model, teacher = fresh(), fresh(seed=1)
    theirs = in_transformers(model, tmp_path / "model")
    larger = in_transformers(teacher, tmp_path / "teacher")
    path = answers(tmp_path / "a.jsonl", SIZE)
    data = opened(path, model, form="turns", packed=False, val_fraction=0.0)
    total, count = torch.zeros(()), 0
    for sample in data.samples["train"]:
        ids = torch.tensor([sample.ids])
        labels = torch.where(torch.tensor([sample.supervised]) > 0, ids, -100)[:, 1:]
        with torch.no_grad():
            said = larger(ids).logits[:, :-1]
        total = total + GKDTrainer.generalized_jsd_loss(
            theirs(ids).logits[:, :-1], said, labels, beta, temperature=1.5, reduction="sum"
        )
        count += sample.supervised_tokens
    loss = total / count
    gradient = gradient_of(theirs, model, loss)
    before = flat(model)
    step = stepper(model, "", divergence=kind, temperature=1.5)
    step.set_teacher(teacher.core)
    result = step.run(data.loader("train", SIZE, CONTEXT))
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert (before - flat(model) - gradient).norm() < 1e-5 * gradient.norm()
