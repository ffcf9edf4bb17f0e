"""Maps of attention beside transformers, which computes them step by step ("eager")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import omnima
from omnima.errors import ConfigError, DataError
from omnima.notebook import AttentionMaps, plot_attention

SMALL = dict(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, max_position_embeddings=64, head_dim=8,
)  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"num_key_value_heads": 2},
    "Mistral": {"num_key_value_heads": 1, "sliding_window": 5, "pad_token_id": 0},
    "Gemma2": {"num_key_value_heads": 2, "sliding_window": 5, "attn_logit_softcapping": 0.5},
    "Qwen3": {"num_key_value_heads": 4},
    "GPT2": {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_transformers(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    fields = FAMILIES[family] if family == "GPT2" else {**SMALL, **FAMILIES[family]}
    config = getattr(transformers, f"{family}Config")(**fields)
    ending = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    theirs = getattr(transformers, family + ending)(config).eval()
    with torch.no_grad():  # drawn weights attend to all alike
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    theirs.set_attn_implementation("eager")
    ids = torch.randint(61, (1, 17))
    with torch.no_grad():
        expected = torch.cat(theirs(ids, output_attentions=True).attentions)
    weights, tokens = omnima.Model.from_pretrained(tmp_path).attention(ids[0].tolist())
    assert weights.shape == (2, 4, 17, 17) and len(tokens) == 17
    assert weights.max() > 0.5  # there is something to see
    np.testing.assert_allclose(weights, expected.numpy(), rtol=5e-5, atol=2e-6)


def model_with_tokenizer() -> omnima.Model:
    tokenizer = omnima.Tokenizer.train(["Ann has $2 and $3."], "byte")
    model = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    return model


def test_a_text_is_read_as_a_prompt_is() -> None:
    model = model_with_tokenizer()
    weights, tokens = model.attention("é$")
    assert tokens == ("<s>", "\\xc3", "\\xa9", "$")
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (weights[..., 0, 1:] == 0).all()  # what comes later is not seen


def test_virtual_tokens_stand_in_front() -> None:
    model = omnima.Model.from_preset("nima", vocab_size=64)
    model.add_adapter("prompt", virtual_tokens=3)
    weights, tokens = model.attention([5, 6])
    assert tokens == ("virtual 1", "virtual 2", "virtual 3", "5", "6")
    assert weights.shape[-2:] == (5, 5)


def test_a_map_bears_its_tokens(tmp_path: Path) -> None:
    figure = model_with_tokenizer().plot_attention("$a $\n\0", 1, 0, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    axes = figure.axes[0]
    assert axes.get_title() == "layer 1, head 0"
    assert [each.get_text() for each in axes.get_xticklabels()] == [
        "<s>", "$", "a", "␣", "$", "⏎", "\\x00"
    ]  # fmt: skip


def test_many_maps_are_one_picture() -> None:
    weights = np.zeros((3, 4, 8, 8), np.float32)
    weights[2, 1] = 1.0
    figure = plot_attention(AttentionMaps(weights, tuple("abcdefgh")), layers=[0, 2])
    axes = figure.axes[0]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["0", "2"]
    shown = axes.get_images()[0].get_array()
    assert shown[9:17, 9:17].min() == 1.0 and shown[:8].max() == 0.0


def test_what_is_not_there_is_said() -> None:
    model = model_with_tokenizer()
    layers = model.config.num_hidden_layers
    with pytest.raises(ConfigError, match=f"layer {layers} is asked for; there are {layers}"):
        model.plot_attention("a", layers=layers)
    with pytest.raises(ConfigError, match="no head is asked for"):
        model.plot_attention("a", heads=[])
    with pytest.raises(DataError, match="context holds"):
        model.attention([1] * (model.context + 1))
    with pytest.raises(DataError, match="at least one"):
        model.attention([])
    with pytest.raises(DataError, match="none of the tokenizer's"):
        model.attention([10**6])
    model.tokenizer = None
    with pytest.raises(DataError, match="no tokenizer"):
        model.attention("a")


def test_maps_that_would_fill_the_memory_are_refused() -> None:
    model = omnima.Model.from_preset("nima", vocab_size=64, max_position_embeddings=16384)
    with pytest.raises(DataError, match="would take .* GB"):
        model.attention([1] * 16384)
