"""Training on cleaned text and on mixtures, through the recipe; the version of the data in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnima import Tokenizer
from omnima.cli.writing import as_trained
from omnima.errors import ConfigError
from omnima.training.launch import train
from omnima.training.recipe import Recipe

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def recipe(data: str, out: Path, **values: object) -> Recipe:
    values = {"data": [data], "out": str(out), "steps": 4, "context": 16, "batch_size": 2, **values}
    values |= {"tokenizer": "byte", "samples": 0, "save_every": 2, "precision": "fp32"}
    return Recipe.from_layers({**values, "model": SMALL})


def test_a_run_on_cleaned_text_records_the_version_and_resumes(tmp_path: Path) -> None:
    data = lines(tmp_path / "raw.jsonl", [f"ship {n % 30} and sea" for n in range(60)])
    (tmp_path / "clean.yaml").write_text("steps: [control, exact]")
    asked = recipe(data, tmp_path / "run", clean=str(tmp_path / "clean.yaml"))
    train(asked, stop_after=2)
    run = train(asked, resume=True)
    assert run.summary["steps"] == 4
    kept = (tmp_path / "run" / "data" / "clean.jsonl").read_text().splitlines()
    assert len(kept) == 30
    version = json.loads((tmp_path / "run" / "run.json").read_text())["data_version"]
    assert all(len(version[key]) == 64 for key in ("data", "cleaning", "tokenizer", "tokens"))
    states = list((tmp_path / "run" / "checkpoints").rglob("state.json"))
    assert states
    assert all(json.loads(path.read_text())["data_version"] == version for path in states)


def test_a_run_on_a_mixture_with_languages(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [f"the ship {n}" for n in range(30)])
    lines(tmp_path / "b.jsonl", [f"le navire {n}" for n in range(30)])
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        "sources: [{data: a.jsonl, weight: 1, language: en}, "
        "{data: b.jsonl, weight: 1, language: fr}]"
    )
    train(recipe(str(mix), tmp_path / "run"))
    tokenizer = Tokenizer.from_pretrained(tmp_path / "run")
    assert {"<|en|>", "<|fr|>"} <= set(tokenizer.special_tokens)
    [ids] = as_trained(tokenizer, ["le"], "fr")
    assert ids[:2] == [tokenizer.bos_id, tokenizer.special_tokens["<|fr|>"]]
    assert as_trained(tokenizer, ["le"], None) == ["le"]
    with pytest.raises(ConfigError, match="knows no language 'de'; it knows en, fr"):
        as_trained(tokenizer, ["x"], "de")
    with pytest.raises(ConfigError, match="it has no language tokens"):
        as_trained(Tokenizer.train(["x"], "byte"), ["x"], "de")
    with pytest.raises(ConfigError, match="clean the sources of the mixture"):
        train(recipe(str(mix), tmp_path / "other", clean="duplicates"))
