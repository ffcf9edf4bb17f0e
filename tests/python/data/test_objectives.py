"""Masked tokens and cut spans beside plain Python, their rates, and whole runs with them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import data
from omnima.config import ModelConfig
from omnima.data import objectives
from omnima.errors import ConfigError, DataError
from omnima.evaluation.directory import evaluate_directory
from omnima.training import TrainConfig, Trainer
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.verify import verify_resume

_BITS = (1 << 64) - 1
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip


def mix(x: int, *more: int) -> int:
    """SplitMix64's finaliser, and of two numbers as core/mix.h has it."""
    x = (x + 0x9E3779B97F4A7C15) & _BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _BITS
    x ^= x >> 31
    return mix(x ^ more[0]) if more else x


class Dice:
    def __init__(self, key: int) -> None:
        self.key, self.drawn = key, 0

    def number(self) -> int:
        self.drawn += 1
        return mix(self.key, self.drawn - 1)

    def choose(self, values: list[int], count: int) -> list[int]:
        for i in range(count):
            j = i + self.number() % (len(values) - i)
            values[i], values[j] = values[j], values[i]
        return values[:count]


def half_up(x: float) -> int:
    return math.floor(x + 0.5)


def key_of(seed: int, row: int) -> int:
    return mix(mix(seed, _BITS), row)


def masked_row(tokens: list[int], key: int, options: Any) -> tuple[list[int], list[int]]:
    """BERT's rule: 15% of the tokens; of them 80% masked, 10% drawn, 10% as they were."""
    dice, ids, labels = Dice(key), list(tokens), [-100] * len(tokens)
    places = [i for i, token in enumerate(tokens) if token not in options.kept]
    for place in dice.choose(places, max(1, half_up(len(places) * options.rate))):
        labels[place] = tokens[place]
        share = (dice.number() >> 11) * 2.0**-53
        if share < 0.8:
            ids[place] = options.mask_id
        elif share < 0.9:
            ids[place] = dice.number() % options.vocab_size
    return ids, labels


def cut_row(tokens: list[int], key: int, options: Any, start: int, end: int) -> tuple[Any, Any]:
    """T5's rule: text and spans take turns, each split at places drawn evenly."""
    dice = Dice(key)
    cut = min(max(1, half_up(len(tokens) * options.rate)), len(tokens) - 1)
    spans = min(max(1, half_up(cut / options.span_length)), cut, len(tokens) - cut)

    def split(total: int) -> list[int]:
        at = [0, *sorted(dice.choose(list(range(1, total)), spans - 1)), total]
        return [after - before for before, after in zip(at, at[1:])]

    lengths = [split(cut), split(len(tokens) - cut)]
    text: list[int] = []
    targets: list[int] = []
    left = list(tokens)
    for out, between, sentinel in zip(*lengths, options.sentinels):
        text += [*left[:between], sentinel]
        targets += [sentinel, *left[between : between + out]]
        left = left[between + out :]
    row = [*text, start, *targets, end]
    return row[:-1], [-100] * len(text) + row[len(text) + 1 :]


@pytest.fixture(scope="module")
def tokenizer() -> omnima.Tokenizer:
    names = ("<mask>", *(f"<extra_id_{i}>" for i in range(8)))
    return omnima.Tokenizer.train(["a few words of text"], "byte", special_tokens=names)


@pytest.fixture(scope="module")
def tokens(tokenizer: omnima.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> data.TokenData:
    source = data.open_source("tinyworld:20KB")
    return data.prepare(source, tokenizer, tmp_path_factory.mktemp("shards"), val_fraction=0.2)


def rows_of(loader: Any, batches: int) -> list[tuple[list[int], list[int]]]:
    rows = []
    for _ in range(batches):
        ids, labels, _ = loader.next()
        rows += list(zip(ids.tolist(), labels.tolist()))
    return rows


def test_masked_rows_equal_plain_python(tokenizer: Any, tokens: Any) -> None:
    options = objectives.with_tokens("masked", 0.2, 3.0, tokenizer)
    assert options is not None and options.mask_id == tokenizer.special_tokens["<mask>"]
    plain = rows_of(tokens.loader("train", 2, 48, seed=7), 6)
    made = rows_of(tokens.loader("train", 2, 48, seed=7, objective=options), 6)
    for row, ((_, text), got) in enumerate(zip(plain, made)):
        assert got == masked_row(text, key_of(7, row), options)


def test_cut_rows_equal_plain_python(tokenizer: Any, tokens: Any) -> None:
    options = objectives.with_tokens("span", 0.2, 2.5, tokenizer)
    assert options is not None
    stream = [int(token) for token in tokens.tokens("val")]
    loader = tokens.loader("val", 2, 32, seed=7, sequential=True, objective=options)
    window = max(n for n in range(2, 32) if n + 2 * spans_of(n, options) + 1 <= 32)
    for row, (ids, labels) in enumerate(rows_of(loader, 6)):
        text = stream[row * window : (row + 1) * window]
        wanted = cut_row(text, key_of(7, row), options, tokens.start_id, tokens.end_id)
        assert ids[: len(wanted[0])] == wanted[0]
        assert labels == wanted[1] + [-100] * (32 - len(wanted[1]))


def spans_of(count: int, options: Any) -> int:
    cut = min(max(1, half_up(count * options.rate)), count - 1)
    return min(max(1, half_up(cut / options.span_length)), cut, count - cut)


def test_tokenizers_without_the_tokens_are_refused(tokenizer: Any) -> None:
    bare = omnima.Tokenizer.train(["a few words"], "byte")
    with pytest.raises(ConfigError, match=r"needs a mask token.*<\|mask\|>"):
        objectives.with_tokens("masked", 0.15, 3.0, bare)
    with pytest.raises(ConfigError, match=r"needs sentinels.*<\|span_0\|>"):
        objectives.with_tokens("span", 0.15, 3.0, bare)
    assert objectives.with_tokens("next_token", 0.15, 3.0, bare) is None
    assert objectives.special_tokens("next_token", 64, 0.15, 3.0) == ()


def test_rows_with_more_spans_than_sentinels_are_refused(tokenizer: Any, tokens: Any) -> None:
    options = objectives.with_tokens("span", 0.5, 1.0, tokenizer)
    with pytest.raises(ConfigError, match=r"spans cut out, but there are 8 sentinels"):
        tokens.loader("train", 2, 64, objective=options)


def test_both_sides_equal_transformers_without_its_causal_mask(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(vocab_size=97, **SHAPE)
    model = omnima.Model.from_config(config, seed=3)
    model.save_pretrained(tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    both = omnima.Model.from_config(config.replace(causal=False), seed=3)
    ids = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(0))
    open_mask = torch.zeros(2, 1, 20, 20)
    wanted = theirs(ids, attention_mask=open_mask).logits
    assert torch.allclose(both(ids), wanted, atol=1e-5)
    assert not torch.allclose(model(ids), wanted, atol=1e-2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"positions": "alibi"}, "goes with positions rotary or learned"),
        ({"prediction_heads": 1}, "predict tokens that causal false would show"),
    ],
)
def test_models_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(vocab_size=64, causal=False, **SHAPE, **changes)


def recipe_for(tmp_path: Path, **changes: Any) -> Recipe:
    return Recipe.from_layers(
        {
            "data": ["tinyworld:20KB"], "model": SHAPE, "tokenizer": "byte", "batch_size": 4,
            "steps": 8, "precision": "fp32", "eval_batches": 2, "val_fraction": 0.2, "lr": 5e-3,
            "samples": 1, "out": str(tmp_path / "run"), **changes,
        }
    )  # fmt: skip


def test_a_masked_run_learns_resumes_and_leaves_a_model_that_sees_both_sides(
    tmp_path: Path,
) -> None:
    recipe = recipe_for(tmp_path, objective="masked", packing="documents", steps=30)
    assert verify_resume(recipe)["identical"]
    run = train(recipe, overwrite=True)
    losses = [each["loss"] for each in run.history]
    assert losses[-1] < losses[0] - 0.5
    assert run.summary["val_bits_per_byte"] is None
    assert run.summary["entropy_floor"] is None
    assert run.samples == ()
    model = omnima.Model.from_pretrained(tmp_path / "run")
    assert not model.config.causal
    assert model.tokenizer is not None and "<|mask|>" in model.tokenizer.special_tokens
    written = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["OmnimaForCausalLM"]
    with pytest.raises(ConfigError, match="cannot write text"):
        model.generate("Once", max_new_tokens=2)
    with pytest.raises(DataError, match="no loss of next tokens"):
        evaluate_directory(tmp_path / "run", ["tinyworld:1KB"])


def test_a_span_run_learns_and_resumes(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, objective="span", corruption_rate=0.3)
    assert verify_resume(recipe)["identical"]
    run = train(recipe, overwrite=True)
    assert run.summary["val_loss"] > 0
    model = omnima.Model.from_pretrained(tmp_path / "run")
    assert model.config.causal
    assert model.tokenizer is not None and "<|span_3|>" in model.tokenizer.special_tokens


def trainer(causal: bool, tokenizer: Any, tokens: Any, **config: Any) -> Trainer:
    model = omnima.Model.from_config(
        ModelConfig(vocab_size=tokenizer.vocab_size, causal=causal, **SHAPE)
    )
    return Trainer(model, tokenizer, tokens, TrainConfig(steps=2, **config))


@pytest.mark.parametrize(
    "causal, config, message",
    [
        (True, {"objective": "masked"}, "needs a model that sees both sides"),
        (False, {}, "sees the tokens that objective next_token"),
        (False, {"objective": "masked", "samples_every": 1}, "cannot write"),
    ],
)
def test_model_and_objective_must_fit(
    causal: bool, config: dict[str, Any], message: str, tokenizer: Any, tokens: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(causal, tokenizer, tokens, **config)


def test_spans_of_packed_documents_are_refused() -> None:
    with pytest.raises(ConfigError, match="set packing to windows"):
        TrainConfig(steps=1, objective="span", packing="documents")
