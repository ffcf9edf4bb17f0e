"""Every recipe of fine-tuning that we ship takes its first steps on the data it is written for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from omnima import Model, Tokenizer
from omnima.training.display import Display
from omnima.training.finetune import run_recipe
from omnima.training.finetune_recipe import FineTuneRecipe

ROOT = Path(__file__).parents[3]
TEXTS = ROOT.parent / "shared" / "data"
PATHS = sorted((ROOT / "examples" / "fine-tuning").glob("*.yaml"))
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}


def test_there_are_recipes() -> None:
    assert {path.stem for path in PATHS} >= {
        "code",
        "language",
        "preference",
        "science",
        "support",
        "writing",
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_takes_its_first_steps(path: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    given = {"steps": 2, "batch_size": 2, "context": 256, "eval_batches": 1, "precision": "fp32"}
    given |= {"out": str(tmp_path / "run"), "rank": 4 if "rank" in values else None, "samples": 0}
    if values["data"] != "pystdlib":
        found = sorted(TEXTS.rglob(values["data"]))
        if not found:
            pytest.skip(f"the data of {path.name} is not below {TEXTS}")
        given["data"] = [str(found[0])]
    tokenizer = Tokenizer.train(["To be or not to be."], "byte")
    model = Model.from_config({**SHAPE, "vocab_size": tokenizer.vocab_size})
    model.tokenizer = tokenizer
    recipe = FineTuneRecipe.from_layers(given, path)
    run = run_recipe(recipe, model, display=Display(silent=True))
    assert run.summary["steps"] == 2 and run.summary["loss_before"] > 0
    assert (run.summary["trainable_parameters"] < model.num_parameters) == (
        values["method"] != "full"
    )
