"""Every recipe we ship takes its first steps on the real text it is written for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from omnima import Tokenizer
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe

ROOT = Path(__file__).parents[3]
TEXTS = ROOT.parent / "shared" / "data"
SMALL = {
    "minutes": None,
    "steps": 2,
    "batch_size": 2,
    "eval_every": 2,
    "eval_batches": 1,
    "samples": 0,
    "precision": "fp32",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_recipe_takes_its_first_steps(path: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    given = values["data"] if isinstance(values["data"], list) else [values["data"]]
    if given not in (["pystdlib"], ["tinyworld"]):
        found = [sorted(TEXTS.rglob(name)) for name in given]
        if not all(found):
            pytest.skip(f"the text of {path.name} is not below {TEXTS}")
        given = [str(places[0]) for places in found]
    values.pop("preset", None)
    values |= {**SMALL, "data": given, "out": str(tmp_path / "run")}
    recipe = Recipe.from_layers(
        {name: value for name, value in values.items() if value is not None}
    )

    run = train(recipe, display=Display(silent=True))

    assert run.summary["steps"] == 2
    assert run.summary["val_bits_per_byte"] > 0
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    saved = Tokenizer.from_pretrained(tmp_path / "run")
    assert config["vocab_size"] == saved.vocab_size
    assert values.get("vocab_size") in (None, saved.vocab_size)
