"""Only the rows of new tokens train: all else stays to the bit, whichever optimizer moves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from omnima import Model, Tokenizer, Trainer
from omnima.errors import ConfigError
from omnima.hub import load_pretrained
from omnima.training.config import OPTIMIZERS
from omnima.training.display import Display
from omnima.training.lr_finder import find_lr

from .runs import MODEL, quiet, recipe, write_story

SIZE = 259  # ids of a byte tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("text") / "story.txt")


def grown(tied: bool = True) -> Model:
    """A model whose tokenizer has learnt two tokens more."""
    shape = {**MODEL, "num_key_value_heads": 2, "intermediate_size": 64}
    model = Model.from_config({**shape, "vocab_size": SIZE, "tie_word_embeddings": tied}, seed=1)
    model.tokenizer = Tokenizer.train(["some text"], "byte")
    assert model.add_tokens(["cats", "dogs"]) == [SIZE, SIZE + 1]
    return model


def trainer(model: Model, text: Path, out: Path, **changes: Any) -> Trainer:
    values = {
        "steps": 6, "batch_size": 2, "precision": "fp32", "samples": 0, "eval_batches": 1,
        "lr": 0.01, "train_rows_from": SIZE, "out": str(out), **changes,
    }  # fmt: skip
    return Trainer(model, model.tokenizer, str(text), values, display=Display(silent=True))


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def check_rows(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, old in before.items():
        if len(old) == SIZE + 2 and old.dim() == 2:
            assert torch.equal(after[name][:SIZE], old[:SIZE])
            assert not torch.equal(after[name][SIZE:], old[SIZE:])
        else:
            assert torch.equal(after[name], old)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_but_the_new_rows_stays_and_runs_resume_exactly(
    tmp_path: Path, text: Path, optimizer: str
) -> None:
    averages = optimizer == "schedule_free_adamw"
    options = {
        "optimizer": optimizer,
        "weight_decay": 0.5,
        "schedule": "constant" if averages else "cosine",
        "ema_decay": 0.0 if averages else 0.9,
    }
    files = []
    for out, stops in (("whole", [None]), ("half", [3, None])):
        for number, stop in enumerate(stops):
            model = grown(tied=optimizer != "adamw")
            before = weights(model)
            run = trainer(model, text, tmp_path / out, **options)
            run.fit(stop_after=stop, resume=number > 0)
        check_rows(before, weights(model))
        check_rows(before, load_pretrained(tmp_path / out)[1])
        files.append((tmp_path / out / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_bf16_moves_the_new_rows_only(tmp_path: Path, text: Path) -> None:
    model = grown()
    before = weights(model)
    trainer(model, text, tmp_path / "run", precision="bf16", checkpoint_layers=1).fit()
    check_rows(before, weights(model))


def test_a_rate_is_sought_for_the_new_rows(tmp_path: Path, text: Path) -> None:
    silent = Display(silent=True)
    rows = find_lr(recipe(tmp_path / "rows", text, train_rows_from=258), silent)
    every = find_lr(recipe(tmp_path / "all", text), silent)
    assert rows.losses != every.losses and min(rows.losses) > min(every.losses)


def test_yaml_and_flags_say_it_too(tmp_path: Path, text: Path) -> None:
    wanted = recipe(tmp_path / "run", text, train_rows_from=250, freeze=["*embed*[:255]"])
    assert yaml.safe_load(yaml.safe_dump(wanted.values()))["train_rows_from"] == 250
    quiet(wanted)
    found = load_pretrained(tmp_path / "run")[1]
    name = "model.embed_tokens.weight"
    quiet(recipe(tmp_path / "other", text, train_rows_from=250, steps=1))
    other = load_pretrained(tmp_path / "other")[1]
    same = (found[name] == other[name]).all(1)
    assert same[:250].all() and not same[255:].any()


def test_what_makes_no_sense_is_refused(tmp_path: Path, text: Path) -> None:
    with pytest.raises(ConfigError, match="train_rows_from is 261, but the .* id is 260: nothing"):
        trainer(grown(), text, tmp_path / "run", train_rows_from=261)
    with pytest.raises(ConfigError, match="train_rows_from"):
        trainer(grown(), text, tmp_path / "run", train_rows_from=0)
    with pytest.raises(ConfigError, match=r"freezes 999 rows; model.embed_tokens.weight has 261"):
        trainer(grown(), text, tmp_path / "run", freeze=["*embed*[:999]"]).fit()
    with pytest.raises(ConfigError, match="muon turns a matrix as a whole"):
        trainer(
            grown(), text, tmp_path / "muon", optimizer="muon", freeze=["*mlp*[:2]"],
            train_rows_from=None,
        ).fit()  # fmt: skip
