"""Where a model lives: names, and what is said where there is no such GPU."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

import omnima
from omnima.errors import ConfigError
from omnima.training.recipe import Recipe

SIZE = {
    "max_position_embeddings": 16,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_model_says_where_it_is() -> None:
    model = omnima.Model.from_config({"vocab_size": 16, **SIZE}, device="cpu")
    assert model.device == "cpu"
    assert omnima.Model.from_preset("nima", vocab_size=16, device="cpu").device == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", "", "mps"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be cpu, cuda or one GPU"):
        omnima.Model.from_config({"vocab_size": 16, **SIZE}, device=name)


def test_where_there_is_no_gpu_every_way_in_says_so(tmp_path, monkeypatch) -> None:
    from omnima.cli.app import app

    no_gpu(monkeypatch)
    model = omnima.Model.from_config({"vocab_size": 16, **SIZE})
    model.save_pretrained(tmp_path / "model")
    for make in (
        lambda: omnima.Model.from_config({"vocab_size": 16, **SIZE}, device="cuda"),
        lambda: omnima.Model.from_preset("nima", vocab_size=16, device="cuda:0"),
        lambda: omnima.Model.from_pretrained(tmp_path / "model", device="cuda"),
    ):
        with pytest.raises(ConfigError, match="no usable GPU|a build without CUDA"):
            make()
    out = tmp_path / "run"
    for command in (
        ["train", "--data", "tinyworld:1k", "--preset", "nima", "--steps", "1", "--out", str(out)],
        ["eval", str(tmp_path / "model"), "--data", "tinyworld:1k"],
    ):
        result = CliRunner().invoke(app, [*command, "--device", "cuda"])
        assert result.exit_code != 0
        assert isinstance(result.exception, ConfigError) or "cuda" in result.output
    assert not out.exists()  # said before anything was made


def test_a_gpu_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="has 2 GPUs, counted from cuda:0"):
        omnima.Model.from_config({"vocab_size": 16, **SIZE}, device="cuda:2")


def test_a_run_may_go_on_elsewhere() -> None:
    flags = {"data": ["tinyworld"], "preset": "1m", "steps": 10}
    here, there = (Recipe.from_layers({**flags, "device": name}) for name in ("cpu", "cuda"))
    assert here.identity() == there.identity()
    assert here.values() != there.values()
