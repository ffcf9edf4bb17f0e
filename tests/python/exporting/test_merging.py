"""Merged models: certified, the same for other tools, refused where they would be rounded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import omnima
from omnima import exporting
from omnima.errors import ConfigError
from omnima.exporting import ExportError, merging


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merging")
    tokenizer = omnima.Tokenizer.train(["to be or not to be, that is the question"], "bpe")
    model = omnima.Model.from_preset(
        "nima", vocab_size=tokenizer.vocab_size, seed=1, num_hidden_layers=1
    )
    model.tokenizer = tokenizer
    model.save_pretrained(folder / "base")
    model.add_adapter("dora", rank=2)
    with torch.no_grad():
        for _, each in model.adapter_parameters():
            each.add_(0.1 * torch.randn(each.shape))
    model.save_adapter(folder / "adapter")
    return folder


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omnima", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_model_that_computes_the_same(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    done = run("merge", places / "base", places / "adapter", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["max_logit_difference"] < 1e-4 < found["max_difference_from_base"]
    assert found["changed_parameters"] == 7 and found["directory"] == str(out)
    ids = torch.arange(10)[None]
    beside = omnima.Model.from_pretrained(places / "base")
    beside.load_adapter(places / "adapter")
    merged = omnima.Model.from_pretrained(out)
    assert (merged(ids) - beside(ids)).abs().max() < 1e-4
    again = run("merge", places / "base", places / "adapter", "--out", out)
    assert again.returncode == 1 and "error:" in again.stderr


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_exports_have_the_adapter_in_their_weights(to: str, places: Path, tmp_path: Path) -> None:
    out = tmp_path / ("model.gguf" if to == "gguf" else "model")
    done = run(
        "export",
        places / "base",
        "--adapter",
        places / "adapter",
        "--to",
        to,
        "--out",
        out,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    exporting.merge(places / "base", places / "adapter", tmp_path / "merged")
    ids = torch.arange(10)[None]
    expected = omnima.Model.from_pretrained(tmp_path / "merged")(ids)
    assert (omnima.Model.from_pretrained(out)(ids) - expected).abs().max() < 1e-4


def test_texts_are_written_with_an_adapter(places: Path) -> None:
    omnima.Model.from_pretrained(places / "base").save_gguf(places / "base.gguf", "q8_0")
    common = ("--prompt", "to be", "--temperature", 0, "--json", "--max-new-tokens", 12)
    for words in ([places / "base"], [places / "base.gguf", "--activations", "int8"]):
        plain = json.loads(run("generate", *words, *common).stdout)
        done = run("generate", *words, *common, "--adapter", places / "adapter")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["text"] != plain["text"]


def test_a_quantized_model_is_not_merged_into(places: Path, tmp_path: Path) -> None:
    model = omnima.Model.from_pretrained(places / "base")
    model.quantize("int8")
    model.save_pretrained(tmp_path / "small")
    with pytest.raises(ConfigError, match="is quantized"):
        exporting.merge(tmp_path / "small", places / "adapter", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_merge_that_computes_something_else_is_not_written(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="another one"):
        exporting.merge(places / "base", places / "adapter", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_an_adapter_that_is_no_numbers_is_not_merged(places: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(places / "adapter", broken)
    weights = load_file(broken / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="no finite numbers.*take an earlier checkpoint"):
        exporting.merge(places / "base", broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
