"""Whole runs of fine-tuning: better held-out answers, the same bytes when resumed, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.training.finetune_runs import once, whole_and_resumed

from omnima import Model, Tokenizer
from omnima.data import open_conversations
from omnima.errors import ConfigError, DataError
from omnima.tokenizers.chat_default import ensure_template
from omnima.training.callbacks import Callback
from omnima.training.display import Display
from omnima.training.finetune import finetune, run_recipe
from omnima.training.finetune_recipe import FineTuneRecipe
from omnima.training.schema import fields_of

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
STEPS = 8
QUICK = {
    "batch_size": 2,
    "lr": 3e-3,
    "context": 96,
    "precision": "fp32",
    "val_fraction": 0.2,
    "eval_batches": 2,
    "eval_every": 4,
}


def sums(path: Path, count: int = 60) -> Path:
    records = [
        {
            "messages": [
                {"role": "user", "content": f"{n % 8} + {n // 8}"},
                {"role": "assistant", "content": f"{n % 8 + n // 8}."},
            ]
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def fresh() -> Any:
    tokenizer = Tokenizer.train(["1 + 2 = 3"], "byte")
    made = Model.from_config({**SMALL, "vocab_size": tokenizer.vocab_size})
    made.tokenizer = tokenizer
    return made


def tuned(model: Any, data: Path, out: Path, **changes: Any) -> Any:
    options = {**QUICK, "steps": STEPS, **changes}
    return finetune(model, data, out, display=Display(silent=True), **options)


def test_answers_get_better_and_everything_is_said(tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    run = tuned(model, data, tmp_path / "run", steps=40)
    found = run.summary
    assert found["loss_after"] < found["loss_before"] - 0.2
    assert found["loss_after"] == found["val_loss"]
    assert found["trainable_parameters"] == model.num_parameters == found["parameters"]
    assert 0 < found["supervised_tokens"] < found["tokens"]
    assert found["steps"] == 40 and found["val_bits_per_byte"] is None
    again = Model.from_pretrained(tmp_path / "run")
    assert again.tokenizer is not None and again.tokenizer.chat_template.startswith("{{ bos_token")
    for (name, mine), (_, its) in zip(model.named_parameters(), again.named_parameters()):
        assert torch.equal(mine, its), name
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["data"]["files"][0]["path"] == str(data)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = sums(tmp_path / "a.jsonl")
    fresh().save_pretrained(tmp_path / "base")
    given = {**QUICK, "steps": STEPS, "data": [str(data)], "model": str(tmp_path / "base")}
    given |= {"accumulate": 2, "save_every": 2}
    whole, parts = whole_and_resumed(tmp_path, given)
    same = ("supervised_tokens", "loss_before", "loss_after", "tokens", "train_loss")
    assert [whole.summary[name] for name in same] == [parts.summary[name] for name in same]
    assert once(tmp_path / "parts", given, resume=True).summary == parts.summary  # finished already


def test_another_base_or_other_data_is_not_resumed(tmp_path: Path) -> None:
    data, model = sums(tmp_path / "a.jsonl"), fresh()
    recipe = FineTuneRecipe.from_layers(
        {**QUICK, "steps": STEPS, "data": [str(data)], "out": str(tmp_path / "run")}
    )
    run_recipe(recipe, model, display=Display(silent=True), stop_after=2)
    with pytest.raises(ConfigError, match="was started differently .base: "):
        run_recipe(recipe, model, display=Display(silent=True), resume=True)
    sums(data, 50)
    with pytest.raises(ConfigError, match="was started differently .*training tokens"):
        run_recipe(recipe, fresh(), display=Display(silent=True), resume=True)


def test_packing_changes_speed_not_what_is_learned(tmp_path: Path) -> None:
    """One step over all samples: packed or not, the same mean loss and the same gradient."""
    data = sums(tmp_path / "a.jsonl", 12)
    losses = []
    for packed in (True, False):
        model = fresh()
        ensure_template(model.tokenizer)
        found = open_conversations(data, model.tokenizer, 96, val_fraction=0.2, packed=packed)
        rows = found.loader("train", 1, 96).rows_per_epoch
        run = tuned(
            model,
            data,
            tmp_path / f"run{packed}",
            steps=1,
            batch_size=rows,
            packed=packed,
            eval_every=1,
        )
        losses.append(
            (run.history[0]["loss"], run.history[0]["grad_norm"], run.summary["supervised_tokens"])
        )
    (mine, norm, count), (its, other, known) = losses
    assert count == known
    assert mine == pytest.approx(its, rel=1e-6) and norm == pytest.approx(other, rel=1e-5)


def test_a_text_is_learned_whole(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("The cat sat.\n<|endoftext|>\n" * 200)
    run = tuned(fresh(), text, tmp_path / "run", objective="lm", steps=20)
    assert run.summary["loss_after"] < run.summary["loss_before"]
    assert run.summary["supervised_tokens"] == run.summary["tokens"]


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("quantized", [False, True])
def test_an_adapter_learns_beside_the_model(method: str, quantized: bool, tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    if quantized:
        model.quantize("int8")
    before = [each.clone() for _, each in model.named_parameters()]
    run = tuned(model, data, tmp_path / "run", method=method, rank=4, steps=30)
    found = run.summary
    assert found["loss_after"] < found["loss_before"] - 0.1
    assert found["trainable_parameters"] == model.num_trainable_parameters
    assert found["trainable_parameters"] < found["parameters"] / 2
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, model.named_parameters()))
    ids = torch.arange(3, 40)[None]
    again = fresh()
    if quantized:
        again.quantize("int8")
    again.load_adapter(tmp_path / "run")
    assert torch.equal(again(ids), model(ids))
    assert (tmp_path / "run" / "chat_template.jinja").exists()
    with pytest.raises(ConfigError, match="has an adapter already .default."):
        tuned(model, data, tmp_path / "other")
    with pytest.raises(ConfigError, match="already holds a run"):
        tuned(fresh(), data, tmp_path / "run", method=method)


@pytest.mark.parametrize("method", ["adalora", "bitfit", "bottleneck", "prefix", "prompt", "vera"])
def test_every_kind_learns_to_answer(method: str, tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    before = [each.detach().clone() for _, each in model.named_parameters()]
    run = tuned(model, data, tmp_path / "run", method=method, steps=30, lr=3e-2)
    assert run.summary["loss_after"] < run.summary["loss_before"] - 0.02
    after = [each for _, each in model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    again = fresh()
    again.load_adapter(tmp_path / "run")
    ids = torch.arange(20)[None]
    assert torch.allclose(again(ids), model(ids), atol=1e-6)
    texts = [each.generate("1 + 2", max_new_tokens=4, temperature=0.0) for each in (model, again)]
    assert texts[0].ids == texts[1].ids


def test_virtual_tokens_shorten_the_rows(tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    tuned(model, data, tmp_path / "run", method="prompt", virtual_tokens=40, context=88)
    with pytest.raises(ConfigError, match="the model's context is 88"):
        tuned(fresh(), data, tmp_path / "more", method="prompt", virtual_tokens=40)


def test_the_first_blocks_stay_as_they_are(tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    tuned(model, data, tmp_path / "run", freeze_layers=1)
    still = {name for name, each in model.named_parameters() if torch.equal(each, before[name])}
    wanted = {name for name in before if name.startswith(("model.layers.0.", "model.embed_"))}
    assert still == wanted
    with pytest.raises(ConfigError, match="has 2 blocks"):
        tuned(fresh(), data, tmp_path / "none", freeze_layers=2)


def test_factors_stand_where_their_paper_has_them(tmp_path: Path) -> None:
    model, data = fresh(), sums(tmp_path / "a.jsonl")
    tuned(model, data, tmp_path / "run", method="ia3", steps=1)
    stands_at = {name.split(".")[-2] for name, _ in model.adapter_parameters()}
    assert stands_at == {"k_proj", "v_proj", "down_proj"}
    with pytest.raises(ConfigError, match="ia3 has no rank"):
        tuned(fresh(), data, tmp_path / "other", method="ia3", rank=4)


def test_without_held_out_samples_there_is_no_loss_before(tmp_path: Path) -> None:
    run = tuned(fresh(), sums(tmp_path / "a.jsonl"), tmp_path / "run", steps=1, val_fraction=0.0)
    assert run.summary["loss_before"] is None and run.summary["loss_after"] is None


def test_callbacks_and_long_samples_are_heard(tmp_path: Path, capsys: Any) -> None:
    class Count(Callback):
        steps = 0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.steps += 1

    count = Count()
    data = sums(tmp_path / "a.jsonl")
    finetune(
        fresh(), data, tmp_path / "run", display=Display(), callbacks=[count],
        **{**QUICK, "context": 33, "steps": 2},
    )  # fmt: skip
    assert count.steps == 2
    said = capsys.readouterr().err
    assert "samples were longer than 33 tokens and were cut" in said
    assert "The model has no chat template" in said and "Held-out loss before: " in said


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"method": "magic"}, "method is 'magic', but must be one of full, lora"),
    "objective": ({"objective": "rlhf"}, "objective is 'rlhf', but must be one of sft"),
    "unknown": ({"batchsize": 2}, 'Unknown key "batchsize".*nearest is "batch_size"'),
    "elsewhere": ({"curriculum": "length"}, 'Unknown key "curriculum"'),
    "budget": ({"steps": 1, "minutes": 1}, "both given"),
    "no budget": ({"steps": None}, "No budget"),
    "rank": ({"rank": 4}, "rank=4 shape an adapter, but method full"),
    "targets": ({"method": "lora", "targets": "z_proj"}, "z_proj"),
    "blocks": ({"method": "lora", "freeze_layers": 1}, "is for method full"),
    "tokens": ({"method": "lora", "virtual_tokens": 4}, "lora has no virtual_tokens"),
    "clock": ({"method": "adalora", "minutes": 1.0, "steps": None}, "say steps or epochs"),
    "field": ({"field": "text"}, "objective sft knows the fields of its formats"),
    "context": ({"context": 512}, "the model's context is 128"),
    "too_long": ({"too_long": "wrap"}, "too_long is 'wrap'"),
    "device": ({"device": "abacus"}, "abacus"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        tuned(fresh(), sums(tmp_path / "a.jsonl"), tmp_path / "run", **changes)


def test_models_that_cannot_learn_to_answer_are_refused(tmp_path: Path) -> None:
    data = sums(tmp_path / "a.jsonl")
    model = fresh()
    model.tokenizer = None
    with pytest.raises(ConfigError, match="has no tokenizer"):
        tuned(model, data, tmp_path / "run")
    model = Model.from_config({**SMALL, "vocab_size": 300, "causal": False})
    model.tokenizer = fresh().tokenizer
    with pytest.raises(ConfigError, match="causal false"):
        tuned(model, data, tmp_path / "run")
    model = fresh()
    model.quantize("int8")
    with pytest.raises(ConfigError, match="quantized"):
        tuned(model, data, tmp_path / "run")
    with pytest.raises(ConfigError, match="No data"):
        finetune(fresh(), [], tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match="No model"):
        run_recipe(FineTuneRecipe.from_layers({"data": ["a"], "steps": 1, "out": str(tmp_path)}))


def test_data_that_teaches_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Once."}\n')
    with pytest.raises(DataError, match="a.jsonl, line 1: plain text holds no answers"):
        tuned(fresh(), path, tmp_path / "run")
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(DataError, match="a.jsonl, line 1: a pair of answers"):
        tuned(fresh(), path, tmp_path / "run")
    sums(path)
    with pytest.raises(DataError, match="no sample is left to learn from.*60 samples were left"):
        tuned(fresh(), path, tmp_path / "run", context=4)


# Where held-out loss was lowest: docs/how-to/adapters.md.
MEASURED = {
    "full": 5e-5, "lora": 6e-4, "dora": 6e-4, "vera": 4.5e-2, "prefix": 3e-2, "prompt": 2.7e-1,
    "bitfit": 2e-3, "ia3": 1.5e-2, "adalora": 7.5e-3, "pissa": 2e-4,
    "qlora": 1.5e-3, "rslora": 5e-4, "bottleneck": 5e-4, "lora+": 6.7e-5,
}  # fmt: skip


@pytest.mark.parametrize("method", MEASURED)
def test_learning_rates_follow_the_kind(method: str) -> None:
    given = {"data": ["a"], "steps": 1, "method": method}
    chosen = FineTuneRecipe.from_layers(given).train.lr
    assert MEASURED[method] / 2 <= chosen <= 2 * MEASURED[method]
    assert FineTuneRecipe.from_layers({**given, "lr": 0.125}).train.lr == 0.125
    assert FineTuneRecipe.from_layers({**given, "objective": "dpo"}).train.lr < chosen


def test_a_recipe_is_read_from_yaml_and_written(tmp_path: Path) -> None:
    recipe = FineTuneRecipe.from_layers({"data": ["a"], "epochs": 2, "model": "m", "out": "o"})
    assert recipe.train.lr == 5e-5 and recipe.train.batch_size == 4 and recipe.train.samples == 0
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: [a]\nsteps: 5\nlr: 0.001\npacked: false\n")
    recipe = FineTuneRecipe.from_layers({"minutes": 1}, path)
    assert (recipe.train.steps, recipe.train.minutes, recipe.packed) == (None, 1, False)
    assert FineTuneRecipe.from_layers(recipe.values()) == recipe
    path.write_text("curriculum: length\n")
    with pytest.raises(ConfigError, match='Unknown key "curriculum" in the recipe'):
        FineTuneRecipe.from_layers({}, path)
    assert set(recipe.values()) == set(FineTuneRecipe.schema())
    assert "train" not in fields_of(FineTuneRecipe)
