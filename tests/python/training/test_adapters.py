"""Runs in which an adapter learns: the model rests, and stopping and resuming leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import omnima
from omnima.errors import ConfigError
from omnima.training import TrainConfig, Trainer
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.display import Display
from omnima.training.run import Run

from .runs import MODEL, write_story

STEPS = 6


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(tmp_path_factory.mktemp("text") / "stories.txt")


def trainer(
    out: Path, text: Path, method: str, adapter_seed: int = 1, **changes: object
) -> Trainer:
    tokenizer = omnima.Tokenizer.train(["a"], "byte")
    config = {"vocab_size": tokenizer.vocab_size, **MODEL}
    model = omnima.Model.from_config(config, seed=3)
    options: dict[str, object] = {"rank": 2, "dropout": 0.1}
    if method in ("bitfit", "prompt", "prefix"):
        options = {} if method == "bitfit" else {"virtual_tokens": 4}
    elif method == "bottleneck":
        options = {"rank": 2}
    elif method == "adalora":
        options = {"rank": 1, "budget_every": 1, "dropout": 0.1}
    model.add_adapter(method, seed=adapter_seed, **options)
    slow = method in ("vera", "adalora")  # few numbers move, or begin as zero
    values = {
        "batch_size": 2, "steps": STEPS, "precision": "fp32", "samples": 0, "eval_batches": 1,
        "lr": 0.2 if slow else 1e-2, "warmup": 1, "save_every": 3, "out": str(out), **changes,
    }  # fmt: skip
    config = TrainConfig.from_values(values)
    return Trainer(model, tokenizer, str(text), config, display=Display(silent=True))


def written(path: Path) -> tuple[bytes, bytes]:
    found = latest_checkpoint(path)
    assert found is not None
    state = (found.path / "optimizer.safetensors").read_bytes()
    return (path / "adapter_model.safetensors").read_bytes(), state


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "method",
    [
        *("lora", "dora", "pissa", "lora+", "vera", "bitfit", "adalora", "bottleneck"),
        *("prompt", "prefix"),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    method: str, precision: str, text: Path, tmp_path: Path
) -> None:
    whole = trainer(tmp_path / "whole", text, method, precision=precision)
    before = [each.detach().clone() for _, each in whole.model.named_parameters()]
    run = whole.fit()
    after = [each for _, each in whole.model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    losses = [each["loss"] for each in run.history]
    assert losses[-1] < losses[0]
    trainer(tmp_path / "parts", text, method, precision=precision).fit(stop_after=3)
    trainer(tmp_path / "parts", text, method, precision=precision).fit(resume=True)
    assert written(tmp_path / "parts") == written(tmp_path / "whole")
    assert Run.load(tmp_path / "parts").history[-1]["loss"] == losses[-1]


def test_the_run_leaves_an_adapter_and_no_model(text: Path, tmp_path: Path) -> None:
    trained = trainer(tmp_path / "run", text, "lora")
    trained.fit()
    names = {each.name for each in (tmp_path / "run").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "summary.json"} <= names
    assert not {"model.safetensors", "config.json", "README.md"} & names
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None and (found.path / "adapter" / "adapter_model.safetensors").is_file()
    model_size = 4 * trained.model.num_parameters
    assert sum(each.stat().st_size for each in found.path.rglob("*.safetensors")) < model_size
    again = omnima.Model.from_config(trained.model.config, seed=3)
    again.load_adapter(tmp_path / "run")
    ids = torch.arange(20)[None]
    assert torch.equal(again(ids), trained.model(ids))


def test_foresight_counts_what_learns(text: Path, tmp_path: Path) -> None:
    trained = trainer(tmp_path / "run", text, "lora")
    trained.fit()
    parts = json.loads((tmp_path / "run" / "foresight.json").read_text())["predicted"]
    learning = trained.model.num_trainable_parameters
    assert parts["memory_by_part"]["optimizer"] == 8 * learning


def test_another_adapter_does_not_resume(text: Path, tmp_path: Path) -> None:
    trainer(tmp_path / "run", text, "lora").fit(stop_after=3)
    with pytest.raises(ConfigError, match=r"adapter\.seed"):
        trainer(tmp_path / "run", text, "lora", adapter_seed=2).fit(resume=True)


def test_adapters_that_are_exchanged_end_the_training(text: Path) -> None:
    from omnima import _core

    model = omnima.Model.from_config({"vocab_size": 61, **MODEL}, seed=3)
    ids = torch.arange(12).view(2, 6)
    model.add_adapter(name="one", rank=2)
    step = _core.TrainStep(model.core, _core.StepOptions())
    step.run_batches([(ids, ids)])
    model.add_adapter(name="two", rank=2)
    with pytest.raises(ConfigError, match="Make the trainer anew"):
        step.run_batches([(ids, ids)])
    model.set_adapters({"one": 1.0, "two": 0.5})
    with pytest.raises(ConfigError, match="No adapter learns"):
        _core.TrainStep(model.core, _core.StepOptions())
