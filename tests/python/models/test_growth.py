"""A vocabulary grows: all that was there stays to the bit, here and in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import Model, Tokenizer
from omnima.errors import ConfigError, DataError

SHAPE: dict[str, Any] = dict(
    hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
NEW = ["<|user|>", "<|bot|>", "<|user|>", "</s>"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["to be or not to be, that is the question " * 9], "bpe")


def model_of(tokenizer: Tokenizer | None, vocab_size: int, **changes: Any) -> Model:
    model = Model.from_config({**SHAPE, "vocab_size": vocab_size, **changes}, seed=3)
    model.tokenizer = tokenizer
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_get_rows_and_old_logits_stay(
    tokenizer: Tokenizer, tied: bool, tmp_path: Path
) -> None:
    size = tokenizer.vocab_size
    model = model_of(tokenizer, size, tie_word_embeddings=tied, attention_bias=True)
    before = {name: each.clone() for name, each in model.named_parameters()}
    ids = torch.arange(2 * 30).reshape(2, 30)
    logits = model(ids)
    made = model.add_tokens(NEW, multiple_of=64)

    assert made == [size, size + 1, size, tokenizer.eos_id]
    assert tokenizer.vocab_size == size + 2 and model.config.vocab_size % 64 == 0
    assert model.config.tie_word_embeddings == tied
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and ("lm_head.weight" in after) != tied
    for name, old in before.items():
        assert torch.equal(after[name][: len(old)], old)
        mean = old.double().mean(0).float()
        assert all(torch.equal(row, mean) for row in after[name][len(old) :])
    assert torch.equal(model(ids)[..., :size], logits)
    mean = logits.detach().double().mean(-1)
    assert (model(ids)[..., size].double() - mean).abs().max() < 1e-5

    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    new = torch.tensor([[*made, 5, size + 1]])
    assert torch.equal(again(new), model(new))
    assert again.tokenizer is not None and again.tokenizer.special_tokens["<|bot|>"] == size + 1
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert (theirs(new).logits - model(new)).abs().max() < 1e-5
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path)("to<|bot|>be")["input_ids"]
    assert encoded == tokenizer.encode("to<|bot|>be", parse_special=True)


def test_spare_rows_are_used_first(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer, tokenizer.vocab_size + 5)
    before = model.named_parameters()[0][1].clone()
    model.add_tokens(["<|a|>"] + [f"<|{i}|>" for i in range(5)])
    after = model.named_parameters()[0][1]
    assert len(after) == tokenizer.vocab_size == len(before) + 1
    assert torch.equal(after[: len(before)], before)


def test_spare_rows_are_never_written(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    model = model_of(tokenizer, 4 * size)
    options: dict[str, Any] = dict(temperature=5.0, top_p=1.0, max_new_tokens=32, ignore_eos=True)
    heard: list[str] = []
    written = model.generate("to be", stream=heard.append, **options)
    assert written.new_tokens == 32 and max(written.ids) < size
    assert "".join(heard) == written.text
    assert len(tokenizer.pieces(written.ids)) == 32
    # Without a tokenizer no row is spare; and a tokenizer may have more tokens than the model.
    model.tokenizer = None
    assert max(model.generate(tokenizer.encode("to be"), **options).ids) >= size
    small = model_of(tokenizer, size - 1)
    assert small.generate([5], **options).new_tokens == 32


def test_as_many_rows_change_nothing(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer, 512)
    core = model.core
    model.resize(512)
    assert model.core is core


def test_new_rows_may_be_random_by_seed() -> None:
    rows = []
    for seed in (1, 1, 2):
        model = model_of(None, 40)
        model.resize(50, init="random", seed=seed)
        rows.append(model.named_parameters()[0][1][40:].clone())
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert 0.005 < rows[0].std() < 0.1


def test_what_cannot_grow_is_refused_and_stays(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    model = model_of(tokenizer, size)
    piece = next(p for p in tokenizer.description.pieces[259:] if len(p) > 1)
    for call, message in (
        (lambda: model.resize(size - 1), f"has {size} rows for tokens and cannot shrink"),
        (lambda: model.resize(size, multiple_of=0), "multiple_of is 0"),
        (lambda: model.add_tokens(["<|a|>"], init="zero"), 'init is "zero"; the choices are mean'),
        (lambda: model.add_tokens([piece]), "piece of ordinary text already"),
        (lambda: model.add_tokens("<|a|>"), "give a list"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    assert (tokenizer.vocab_size, model.config.vocab_size) == (size, size)
    with pytest.raises(DataError, match="no tokenizer"):
        model_of(None, 40).add_tokens(["<|a|>"])
