"""ModelConfig, presets and sizes by parameter count."""

from __future__ import annotations

import dataclasses

import pytest

from omnima import _core
from omnima.config import PRESETS, ModelConfig, config_for_parameters, model_preset
from omnima.errors import ConfigError

SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2, "tie_word_embeddings": False},
        {"norm": "layer_norm", "positions": "learned", "activation": "gelu"},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 8, "positions": "none"},
        {"qk_norm": True, "activation": "geglu", "num_key_value_heads": 1},
        {"positions": "relative", "relative_buckets": 8, "relative_max_distance": 20},
        {"num_experts": 4, "shared_expert_intermediate_size": 24, "activation": "geglu"},
        {"num_experts": 3, "activation": "relu2", "moe_intermediate_size": 20},
        {"num_experts": 3, "decoder_sparse_step": 2, "tie_word_embeddings": False},
        {"positions": "alibi", "activation": "relu2", "parallel_residual": True},
    ],
)
def test_counts_by_part_equal_the_core(changes: dict[str, object]) -> None:
    config = ModelConfig(**SMALL, **changes)
    decoder = _core.Decoder(config.core(), 0)
    assert config.num_parameters == decoder.num_parameters()
    assert config.num_parameters == sum(p.numel() for _, p in decoder.named_parameters())


def test_a_token_meets_the_experts_it_is_sent_to() -> None:
    fields = {**SMALL, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    every, other = ModelConfig(**fields), ModelConfig(**{**fields, "decoder_sparse_step": 2})
    expert = 3 * 64 * 16
    assert every.num_parameters - every.num_active_parameters == 2 * 4 * expert
    assert other.num_parameters - other.num_active_parameters == 4 * expert
    assert ModelConfig(**SMALL).num_active_parameters == ModelConfig(**SMALL).num_parameters


def test_gpt2_has_the_published_count() -> None:
    assert model_preset("gpt2").num_parameters == 124_439_808


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("nima", "1m")])
def test_presets_divide_by_quantization_blocks(name: str) -> None:
    config = model_preset(name, vocab_size=1024 if name != "gpt2" else None)
    assert config.hidden_size % 64 == 0
    assert config.intermediate_size % 64 == 0


@pytest.mark.parametrize(
    ("name", "vocabulary", "millions"),
    [
        ("nima", 1024, 0.54),
        ("1m", 2048, 1.0),
        ("5m", 2048, 5.0),
        ("10m", 2048, 10.1),
        ("35m", 8192, 35.3),
        ("125m", 50257, 123.5),
        ("355m", 50257, 360),
        ("1b", 32000, 1038),
    ],
)
def test_presets_are_what_their_names_say(name: str, vocabulary: int, millions: float) -> None:
    count = model_preset(name, vocab_size=vocabulary).num_parameters / 1e6
    assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("count", [300_000, 1_000_000, 5_000_000, 20_000_000, 124_000_000, 10**9])
def test_a_parameter_count_is_met(count: int) -> None:
    config = config_for_parameters(count, vocab_size=1024 if count < 4e6 else 8192)
    assert config.num_parameters == pytest.approx(count, rel=0.04)
    if count >= 5_000_000:
        assert config.hidden_size % 64 == 0
        assert config.intermediate_size % 64 == 0


def test_counts_that_cannot_be_met_say_so() -> None:
    with pytest.raises(ConfigError, match="smaller vocabulary"):
        config_for_parameters(1_000_000, vocab_size=64_000)
    with pytest.raises(ConfigError, match="too few"):
        config_for_parameters(10, vocab_size=4)


def test_a_size_that_cannot_be_counted_is_refused() -> None:
    most = 1 << 24
    with pytest.raises(ConfigError, match="at most 1e12"):
        ModelConfig(**{**SMALL, "num_attention_heads": most, "head_dim": most})
    with pytest.raises(ConfigError, match="at most 1e12"):
        ModelConfig(**SMALL, intermediate_size=most).replace(num_hidden_layers=most)


def test_a_context_whose_rotary_tables_fill_the_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="rotary tables of 512 MiB: lower max_position_embedd"):
        ModelConfig(**{**SMALL, "head_dim": 8, "max_position_embeddings": 1 << 24})
    ModelConfig(**{**SMALL, "head_dim": 8, "max_position_embeddings": 1 << 23})
    ModelConfig(**{**SMALL, "positions": "none", "max_position_embeddings": 1 << 24})


def test_unknown_names_point_to_the_nearest() -> None:
    with pytest.raises(ConfigError, match='nearest is "hidden_size"'):
        ModelConfig(**SMALL, hiddn_size=3)
    with pytest.raises(ConfigError, match='nearest is "10m"'):
        model_preset("10mm", vocab_size=100)
    with pytest.raises(AttributeError, match="Config"):
        import omnima.config

        _ = omnima.config.Config


def test_it_is_frozen_comparable_and_described() -> None:
    config = ModelConfig(**SMALL)
    assert config == ModelConfig.from_dict(config.to_dict())
    assert hash(config) == hash(ModelConfig(**SMALL))
    assert config != config.replace(hidden_size=128)
    assert "hidden_size=64" in repr(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3  # type: ignore[misc]
    assert all(field.metadata["meaning"] for field in dataclasses.fields(config))
