"""TinyWorld's floor against real models: no trained one comes below it, whatever the tokenizer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from omnima import Model, Tokenizer
from omnima.config import ModelConfig
from omnima.data import open_source, prepare
from omnima.evaluation import score
from omnima.training import TrainConfig, Trainer
from omnima.training.display import Display

TIME = 128


def train(place: Path, kind: str, steps: int) -> tuple[Any, Any, Any]:
    """Train on a TinyWorld so small that a model can learn it by heart; measure all held-out."""
    from omnima import _core

    source = open_source("tinyworld:60KB")
    tokenizer = Tokenizer.train(source, kind, vocab_size=512 if kind == "bpe" else None)
    data = prepare(source, tokenizer, place / "data", 0.3, 0)
    model = Model.from_config(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TIME,
        )
    )
    config = TrainConfig(
        steps=steps, batch_size=8, lr=4e-3, samples=0, precision="fp32", out=str(place / "run")
    )
    run = Trainer(model, tokenizer, data, config, display=Display(silent=True)).fit()
    step = _core.TrainStep(model.core, _core.StepOptions())
    return data, run, score(step, data, "val", 8, TIME)


@pytest.mark.parametrize(("kind", "steps"), [("bpe", 60), ("byte", 25)])
def test_the_floor_lies_below_a_trained_models_loss(tmp_path: Path, kind: str, steps: int) -> None:
    data, run, held_out = train(tmp_path, kind, steps)
    floor = data.entropy_floor
    assert floor is not None and floor == run.summary["entropy_floor"]
    assert run.history[-1]["loss"] < 0.75 * run.history[0]["loss"]  # it did learn
    assert 0 < floor < held_out.loss and floor < run.summary["val_loss"]
    bits = data.entropy_floor_bits_per_byte
    assert 0 < bits < held_out.bits_per_byte
    # One number in two units, and the loss is measured over exactly the tokens the floor counts.
    assert bits == pytest.approx(floor * data.val_tokens / math.log(2) / data.val_bytes)
    assert held_out.tokens == data.val_tokens
    assert held_out.bytes == pytest.approx(data.val_bytes)


def test_the_floor_in_bits_a_byte_does_not_depend_on_the_tokenizer(tmp_path: Path) -> None:
    source = open_source("tinyworld:60KB")
    floors = []
    for kind, size in (("byte", None), ("char", None), ("bpe", 400), ("bpe", 600)):
        tokenizer = Tokenizer.train(source, kind, vocab_size=size)
        data = prepare(source, tokenizer, tmp_path / f"{kind}{size}", 0.2, 0)
        floors.append((data.entropy_floor_bits_per_byte, data.entropy_floor))
    bits = [each for each, _ in floors]
    assert bits == pytest.approx([bits[0]] * 4)
    assert floors[0][1] < floors[2][1]  # but a longer piece holds more nats


def test_what_is_held_out_never_occurs_in_training(tmp_path: Path) -> None:
    source = open_source(["tinyworld:600KB", "tinyworld:400KB"])  # most documents come twice
    tokenizer = Tokenizer.train(["a"], "byte")
    data = prepare(source, tokenizer, tmp_path, 0.2, 0)
    texts = {}
    for split in ("train", "val"):
        ids = [int(each) for each in data.tokens(split)]
        stories: list[list[int]] = [[]]
        for each in ids:
            stories[-1].append(each)
            if each == data.end_id:
                stories.append([])
        texts[split] = [tokenizer.decode(story[:-1]) for story in stories[:-1]]
    assert len(texts["val"]) == data.val_documents > 200
    assert len(set(texts["train"])) < 0.7 * len(texts["train"])
    assert not set(texts["train"]) & set(texts["val"])  # twice, but never on both sides
    assert sorted([*texts["train"], *texts["val"]]) == sorted(source.documents())
