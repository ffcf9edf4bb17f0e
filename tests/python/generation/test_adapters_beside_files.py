"""Adapters beside weights that lie as their file stores them: what is written is what a model in
float32 writes with the same adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.generation.test_adapters import GREEDY, KINDS, distance

import omnima
from omnima.errors import DataError, OmnimaError
from omnima.generation import generate

IDS = list(range(3, 40))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as directories and as a file of llama.cpp, and an adapter of each kind."""
    place = tmp_path_factory.mktemp("beside")
    model = omnima.Model.from_preset(
        "nima", vocab_size=64, seed=0, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.1,
    )  # fmt: skip
    model.save_pretrained(place / "float32")
    model.save_pretrained(place / "bfloat16", dtype="bfloat16")
    model.save_gguf(place / "model.gguf", "q8_0")
    draw = torch.Generator().manual_seed(4)
    for number, (method, options) in enumerate(KINDS):
        model.add_adapter(method, name="one", **options)
        with torch.no_grad():
            for _, each in model.adapter_parameters("one"):
                each.add_(torch.randn(each.shape, generator=draw) * 0.2)
        model.save_adapter(place / f"a{number}", "one")
        model.remove_adapter("one")
    quantized = omnima.Model.from_pretrained(place / "float32")
    quantized.quantize("int8")
    quantized.save_pretrained(place / "int8")
    return place


def written(model: Any, **options: Any) -> list[int]:
    ids: list[int] = generate(model, None, [IDS[:5]], **GREEDY, **options)[0].ids
    return ids


@pytest.mark.parametrize("number", range(len(KINDS)))
@pytest.mark.parametrize(
    ("name", "dtype", "like"),
    [
        ("float32", "auto", "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("bfloat16", "auto", "bfloat16"),
        ("model.gguf", "auto", "model.gguf"),  # whose rows of queries and keys lie otherwise
        ("int8", "auto", "int8"),
    ],
)
def test_it_is_what_float32_writes(
    places: Path, number: int, name: str, dtype: str, like: str
) -> None:
    whole = omnima.Model.from_pretrained(places / like)
    stored = omnima.Model.from_pretrained(places / name, dtype=dtype)
    plain = stored.engine.logits(IDS)
    for model in (whole, stored):
        assert model.load_adapter(places / f"a{number}") == f"a{number}"
    for stepwise in (False, True):
        expected = whole.engine.logits(IDS, stepwise=stepwise)
        assert distance(stored.engine.logits(IDS, stepwise=stepwise), expected) < 1e-4
        assert distance(expected, plain) > 0.05
    assert written(stored) == written(whole)
    assert stored.context == whole.context
    stored.set_adapters({})
    assert torch.equal(stored.engine.logits(IDS), plain)
    assert written(stored, adapters=f"a{number}") == written(whole)
    stored.remove_adapter(f"a{number}")
    assert stored.adapters == {} and torch.equal(stored.engine.logits(IDS), plain)


def test_texts_of_one_call_have_adapters_of_their_own(places: Path) -> None:
    model = omnima.Model.from_pretrained(places / "model.gguf", dtype="auto", activations="int8")
    choices = [f"a{number}" for number in range(len(KINDS))]
    for choice in choices:
        model.load_adapter(places / choice)
    together = generate(
        model, None, [IDS[:5]] * (len(choices) + 1), adapters=[*choices, None], **GREEDY
    )
    for choice, found in zip([*choices, {}], together, strict=True):
        model.set_adapters(choice)
        assert written(model) == found.ids
    model.set_adapters({"a0": 0.5, "a1": -1.0})
    assert written(model) == written(model, adapters={"a0": 0.5, "a1": -1.0})


def test_what_needs_numbers_says_so(places: Path) -> None:
    model = omnima.Model.from_pretrained(places / "float32", dtype="auto")
    model.load_adapter(places / "a0")
    for act in (
        lambda: model.add_adapter("lora"),
        model.merge_adapters,
        lambda: model.save_adapter(places / "again", "a0"),
    ):
        with pytest.raises(OmnimaError, match='dtype="float32"'):
            act()
    with pytest.raises(DataError, match="no adapter_config"):
        model.load_adapter(places / "float32")
    assert list(model.adapters) == ["a0"]
