"""Scores and inventories: exact on what can be computed by hand, clear about what is not there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from omnima import Model, Tokenizer, _core
from omnima.config import ModelConfig
from omnima.data import open_source, prepare
from omnima.errors import ConfigError, DataError
from omnima.evaluation import Score, score
from omnima.evaluation.directory import batch_shape, evaluate_directory, open_model
from omnima.evaluation.inventory import describe_directory, part_of

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = Tokenizer.train(["abc"], "byte")
    made = Model.from_config(ModelConfig(vocab_size=tokenizer.vocab_size, **TINY))
    made.tokenizer = tokenizer
    return made


def test_a_score_in_all_its_units() -> None:
    found = Score(loss=math.log(4), tokens=10, bytes=20)
    assert found.perplexity == pytest.approx(4) and found.bits_per_byte == pytest.approx(1)
    assert found.as_dict()["tokens"] == 10
    assert Score(1e4, 1, 1).perplexity == math.inf
    assert math.isnan(Score(1.0, 1, 0).bits_per_byte)


def test_rows_are_as_long_as_documents_and_as_many_as_text(tmp_path: Path, model: Model) -> None:
    (tmp_path / "few.txt").write_text("A cat.\n<|endoftext|>\n" * 9 + "x" * 700)
    tokens = prepare(
        open_source([str(tmp_path / "few.txt")]), model.tokenizer, tmp_path / "tokens", 0.0
    )
    assert batch_shape(tokens, 8, 8192) == (2, 701)  # a byte a token, and the end
    assert batch_shape(tokens, 1, 8192) == (1, 701)
    assert batch_shape(tokens, 8, 32) == (8, 32)
    step = _core.TrainStep(model.core, _core.StepOptions())
    wide, narrow = (score(step, tokens, "train", 8, time) for time in (32, 24))
    assert wide.tokens == narrow.tokens == tokens.train_tokens


def test_a_model_that_knows_nothing_scores_the_logarithm_of_its_vocabulary(
    tmp_path: Path, model: Model
) -> None:
    with torch.no_grad():
        flat = Model.from_config(model.config)
        for _, parameter in flat.named_parameters():
            parameter.zero_()
    flat.tokenizer = model.tokenizer
    flat.save_pretrained(tmp_path / "flat")
    (tmp_path / "ü a.txt").write_text("Ça va? " * 30, encoding="utf-8")
    found = evaluate_directory(tmp_path / "flat", [str(tmp_path / "ü a.txt")])
    assert found.loss == pytest.approx(math.log(model.config.vocab_size), rel=1e-5)
    assert found.tokens == found.bytes + 1  # a byte a token, and the end
    with pytest.raises(ConfigError, match="raise or skip"):
        evaluate_directory(tmp_path / "flat", ["x"], on_error="shrug")


def test_an_empty_split_has_no_score(tmp_path: Path, model: Model) -> None:
    from omnima import _core

    data = prepare(open_source("tinyworld:5KB"), model.tokenizer, tmp_path, 0.0, 0)
    step = _core.TrainStep(model.core, _core.StepOptions())
    with pytest.raises(DataError, match="val split holds no token"):
        score(step, data, "val", 2, 32)
    part = score(step, data, "train", 2, 32, batches=1)
    assert 0 < part.tokens <= 64 and part.bytes < data.train_bytes


def test_directories_without_a_model_or_a_tokenizer_are_refused(
    tmp_path: Path, model: Model
) -> None:
    with pytest.raises(ConfigError, match="There is no directory"):
        open_model(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no config.json: give a model's directory"):
        open_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="not finished.*--resume"):
        open_model(tmp_path)
    bare = Model.from_config(model.config)
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="no tokenizer"):
        open_model(tmp_path / "bare")


def test_the_inventory_is_complete(tmp_path: Path, model: Model) -> None:
    model.save_pretrained(tmp_path / "a")
    facts = describe_directory(tmp_path / "a")
    assert sum(facts["parts"].values()) == facts["parameters"] == model.num_parameters
    assert facts["training"] is None and facts["tokenizer"]["kind"] == "byte"
    assert part_of("something.else") == "other"
    (tmp_path / "a" / "precision.json").write_text(json.dumps({"precision": "bf16"}))
    assert describe_directory(tmp_path / "a")["training"] == {"precision": "bf16"}
    bare = Model.from_config(model.config)
    bare.save_pretrained(tmp_path / "b")
    assert describe_directory(tmp_path / "b")["tokenizer"] is None
