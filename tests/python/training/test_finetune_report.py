"""The report of a fine-tuning: what held-out samples say before and after, their answers, and that
neither a stop nor a failure loses or fakes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.training.finetune_runs import once, whole_and_resumed
from tests.python.training.preference_cases import CONTEXT, answers, fresh, opened, pairs

from omnima.data import open_conversations
from omnima.errors import CallbackError, ConfigError, NonFiniteError
from omnima.training import finetuner
from omnima.training.callbacks import Callback
from omnima.training.display import Display
from omnima.training.finetune import finetune
from omnima.training.finetune_report import page_of
from omnima.training.held_out_answers import questions_of

QUICK: dict[str, Any] = {
    "context": CONTEXT, "batch_size": 4, "precision": "fp32", "val_fraction": 0.2, "eval_every": 5,
    "lr": 3e-3, "steps": 6, "answer_tokens": 12,
}  # fmt: skip


def chats(path: Path, count: int = 30) -> Path:
    records = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": f"Here: {n}."},
                {"role": "user", "content": "Thanks."},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def tuned(model: Any, data: Path, out: Path, **changes: Any) -> Any:
    return finetune(model, data, out, **{**QUICK, "display": Display(silent=True), **changes})


def report_in(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text(encoding="utf-8")))


def written(model: Any, ids: list[int]) -> str:
    most = QUICK["answer_tokens"]
    return str(model.generate(ids, max_new_tokens=most, temperature=0.0).text)


def test_loss_perplexity_and_answers(tmp_path: Path, capsys: Any) -> None:
    model, path = fresh(), chats(tmp_path / "a.jsonl")
    data = open_conversations(path, model.tokenizer, CONTEXT, val_fraction=0.2)
    run = tuned(model, path, tmp_path / "run", display=Display(), steps=20)
    found, summary = report_in(run.path), run.summary
    assert summary["report"] == str(run.path / "report.md")
    assert found["before"] == {
        "loss": summary["loss_before"],
        "perplexity": pytest.approx(math.exp(summary["loss_before"])),
    }
    assert found["after"]["loss"] == summary["loss_after"] < found["before"]["loss"]
    assert found["held_out_samples"] == data.val_samples == 6
    facts = ("steps", "tokens", "seconds", "supervised_tokens", "trainable_parameters")
    assert all(found[name] == summary[name] for name in facts)
    assert (found["objective"], found["method"], found["model"]) == ("sft", "full", None)
    untouched, asked = fresh(), [each.asked for each in data.samples["val"][:3]]
    assert len(found["answers"]) == 3
    for each, ids in zip(found["answers"], asked):
        number = each["prompt"].split("Say ")[1].split(".")[0]
        assert each["prompt"] == model.tokenizer.decode(ids, skip_special=False)
        assert each["reference"].strip() == f"Here: {number}."  # the first answer alone
        assert each["before"] == written(untouched, ids) != each["after"] == written(model, ids)
    page = (run.path / "report.md").read_text(encoding="utf-8")
    assert page == page_of(found)
    assert f"| perplexity | {found['before']['perplexity']:,.2f} |" in page
    assert page.count("\nReference:\n") == 3
    said = capsys.readouterr().err
    assert "held-out samples" in said and f"{summary['loss_after']:.4f}" in said
    assert "reference" in said


def test_what_was_before_survives_a_stop(tmp_path: Path) -> None:
    data = chats(tmp_path / "a.jsonl")
    fresh().save_pretrained(tmp_path / "base")
    given = {**QUICK, "save_every": 2, "data": [str(data)], "model": str(tmp_path / "base")}
    whole, parts = whole_and_resumed(tmp_path, given)
    one, other = report_in(whole.path), report_in(parts.path)
    assert one.pop("seconds") > 0 and other.pop("seconds") > 0
    assert one == other and one["model"] == str(tmp_path / "base")
    assert one["before"]["loss"] > one["after"]["loss"] and len(one["answers"]) == 3


class Fails(Callback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise ValueError("on purpose")


def test_a_failed_run_has_no_report_until_it_is_finished(tmp_path: Path) -> None:
    fresh().save_pretrained(tmp_path / "base")
    out, data = tmp_path / "run", chats(tmp_path / "a.jsonl")
    given = {**QUICK, "data": [str(data)], "model": str(tmp_path / "base")}
    with pytest.raises(CallbackError):
        once(out, given, callbacks=[Fails()])
    assert not list(out.glob("report.*"))
    before = json.loads((out / "run.json").read_text())["before"]
    run = once(out, given, resume=True)
    found = report_in(run.path)
    assert found["before"]["loss"] == before["loss"]
    assert [each["before"] for each in found["answers"]] == [a["answer"] for a in before["answers"]]
    with pytest.raises(CallbackError):  # another's report does not stay beside it
        once(out, given, callbacks=[Fails()], overwrite=True)
    assert not list(out.glob("report.*"))


def test_refused_before_its_first_step(tmp_path: Path) -> None:
    data = chats(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="answers is -1"):
        tuned(fresh(), data, tmp_path / "run", answers=-1)
    with pytest.raises(ConfigError, match="the model's context is 128"):
        tuned(fresh(), data, tmp_path / "run", context=512)
    assert not list((tmp_path / "run").glob("report.*"))


def test_a_text_goes_on(tmp_path: Path) -> None:
    text, model = tmp_path / "a.txt", fresh()
    text.write_text("".join(f"Cat {n} sat.\n<|endoftext|>\n" for n in range(80)))
    run = tuned(model, text, tmp_path / "run", objective="lm")
    found = report_in(run.path)
    assert found["before"]["perplexity"] > found["after"]["perplexity"] > 1
    assert found["held_out_samples"] > 0 and len(found["answers"]) == 3
    for each in found["answers"]:
        document = each["prompt"].removeprefix("<s>") + each["reference"].removesuffix("…")
        assert document in text.read_text().replace("<|endoftext|>", "")
        assert each["before"] != each["after"]


def losses_of(model: Any, samples: Any) -> list[float]:
    found = []
    for each in samples:
        ids = torch.tensor([each.ids])
        labels = torch.where(torch.tensor([each.supervised]) > 0, ids, -100)
        with torch.no_grad():
            mean = model.loss(ids[:, :-1], labels[:, 1:]).item()
        found.append(mean * each.supervised_tokens)
    return found


def margins_of(values: list[float]) -> list[float]:
    return [good - bad for good, bad in zip(values[::2], values[1::2])]


@pytest.mark.parametrize("name", ["dpo", "simpo", "orpo"])
def test_preferences_have_accuracy_and_margin(name: str, tmp_path: Path) -> None:
    model, path = fresh(), pairs(tmp_path / "a.jsonl")
    samples = opened(path, model, val_fraction=0.2).samples["val"]
    run = tuned(model, path, tmp_path / "run", objective=name, method="lora", beta=0.5, steps=10)
    found = report_in(run.path)
    sizes = [each.supervised_tokens for each in samples]
    losses = {"before": losses_of(fresh(), samples), "after": losses_of(model, samples)}
    for moment, sums in losses.items():
        means = margins_of([-loss / size for loss, size in zip(sums, sizes)])
        mine = found[moment]
        assert mine["ranking_accuracy"] == sum(each > 0 for each in means) / len(means)
        assert mine["log_probability_margin"] == pytest.approx(
            sum(means) / len(means), rel=1e-4, abs=1e-6
        )
        rewards = [0.5 * each for each in means]
        if name == "dpo":
            deltas = [a - b for a, b in zip(losses["before"], sums)]
            rewards = [0.5 * each for each in margins_of(deltas)]
        expected = sum(rewards) / len(rewards)
        assert mine["reward_margin"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        right = sum(each > 0 for each in rewards) / len(rewards)
        begins = name == "dpo" and moment == "before"  # nothing is ranked by rewards of zero
        assert mine["reward_accuracy"] == (None if begins else right)
        assert "perplexity" not in mine
    assert found["after"]["reward_margin"] > found["before"]["reward_margin"]
    assert [each["reference"][:10] for each in found["answers"]] == ["Of course:"] * 3
    assert ("| reward accuracy | - |" in page_of(found)) == (name == "dpo")


def test_judged_answers_have_accuracy_and_margin(tmp_path: Path) -> None:
    model, path = fresh(), pairs(tmp_path / "a.jsonl")
    data = opened(path, model, form="judged", val_fraction=0.2)
    run = tuned(model, path, tmp_path / "run", objective="kto", beta=0.5, steps=10)
    found, samples = report_in(run.path), data.samples["val"]
    assert found["before"]["reward_accuracy"] is None and found["before"]["reward_margin"] == 0
    old, new = losses_of(fresh(), samples), losses_of(model, samples)
    ratios = [a - b for a, b in zip(old, new)]
    drift = max(0.0, sum(ratios[1::2]) / len(ratios[1::2]))
    signs = [1 if each.good else -1 for each in samples[::2]]
    right = sum(sign * (ratio - drift) > 0 for sign, ratio in zip(signs, ratios[::2]))
    assert found["after"]["reward_accuracy"] == right / len(signs)
    margin = 0.5 * sum(s * r for s, r in zip(signs, ratios[::2])) / len(signs)
    assert found["after"]["reward_margin"] == pytest.approx(margin, rel=1e-3)
    assert "ranking_accuracy" not in found["after"]
    assert all(each["reference"].startswith("Of course") for each in found["answers"])


def test_a_reward_model_has_accuracy_and_writes_no_answers(tmp_path: Path) -> None:
    model, path = fresh(), pairs(tmp_path / "a.jsonl")
    samples = opened(path, model, form="scored", val_fraction=0.2).samples["val"]
    run = tuned(model, path, tmp_path / "run", objective="reward", steps=10)
    found = report_in(run.path)
    from omnima import Model

    judge = Model.from_pretrained(run.path)
    margins = margins_of(judge.reward([each.ids[:-1] for each in samples]))
    expected = sum(margins) / len(margins)
    assert found["after"]["reward_margin"] == pytest.approx(expected, rel=1e-4)
    assert found["after"]["reward_accuracy"] == sum(each > 0 for each in margins) / len(margins)
    assert found["before"]["reward_accuracy"] is not None and found["answers"] == []


def test_nothing_held_out_and_no_answers(tmp_path: Path) -> None:
    data = chats(tmp_path / "a.jsonl")
    run = tuned(fresh(), data, tmp_path / "none", val_fraction=0.0)
    found = report_in(run.path)
    assert found["before"] == found["after"] == {"loss": None} and found["answers"] == []
    assert "nothing was measured" in page_of(found)
    run = tuned(fresh(), data, tmp_path / "quiet", answers=0)
    found = report_in(run.path)
    assert found["after"]["loss"] > 0 and found["answers"] == []
    assert "## Answers" not in page_of(found)


def test_a_model_that_cannot_answer_is_still_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(*_: Any) -> Any:
        raise NonFiniteError("the logits are not finite")

    monkeypatch.setattr(finetuner, "answers_of", broken)
    run = tuned(fresh(), chats(tmp_path / "a.jsonl"), tmp_path / "run", display=Display())
    found = report_in(run.path)
    assert found["answers"] == [] and found["after"]["loss"] < found["before"]["loss"]
    assert "The report is without answers: the logits are not finite" in capsys.readouterr().err


def test_questions_leave_room_and_short_ones_come_first(tmp_path: Path) -> None:
    model, path = fresh(), tmp_path / "a.jsonl"
    records = [{"prompt": "x" * (300 - 40 * n), "completion": " yes"} for n in range(6)]
    records += records[:2]  # asked twice
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    data = open_conversations(path, model.tokenizer, 400, val_fraction=0.0)
    data.samples["val"] = data.samples["train"]
    found = questions_of(data, 5, 290)
    sizes = [len(each.asked) for each in found]
    assert all(size < 290 for size in sizes) and len(set(sizes)) == len(sizes) == 5
    assert sizes[-1] > 256 and max(sizes[:-1]) <= 256
    assert questions_of(data, 2, 290) == found[:2]
    short = open_conversations(
        answers(tmp_path / "b.jsonl", 3), model.tokenizer, 96, val_fraction=0.0
    )
    assert questions_of(short, 3, 96) == []  # nothing is held out


def test_texts_cannot_break_the_page(tmp_path: Path) -> None:
    run = tuned(fresh(), chats(tmp_path / "a.jsonl"), tmp_path / "run")
    found = report_in(run.path)
    found["answers"][0]["after"] = "```python\nprint()\n```\n# no heading"
    assert "````text\n```python\nprint()\n```\n# no heading\n````" in page_of(found)
    found["after"]["perplexity"] = None  # infinite
    assert "| perplexity | " in page_of(found) and "| - |" in page_of(found)
