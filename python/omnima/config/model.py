"""ModelConfig: the fields of the C++ ``DecoderConfig`` as a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omnima import _core
from omnima.config.activations import is_gated
from omnima.config.presets import PRESETS, initializer_for
from omnima.errors import ConfigError

# The base is made from the core's own descriptions, so that a field is described once.
_Fields: Any = dataclasses.make_dataclass(
    "_Fields",
    [
        (
            field.name,
            type(field.default),
            dataclasses.field(
                default=field.default,
                metadata={
                    "meaning": field.meaning,
                    "minimum": field.minimum,
                    "maximum": field.maximum,
                    "choices": tuple(field.choices),
                },
            ),
        )
        for field in _core.DecoderConfig.fields()
    ],
    frozen=True,
)


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class ModelConfig(_Fields):  # type: ignore[misc]
    """Shape of a decoder-only language model; checked when made.

    The fields are those of Hugging Face's Llama configuration where it has them; each carries its
    meaning and bounds in ``dataclasses.fields(ModelConfig)[i].metadata``. Zeros are filled in:
    ``intermediate_size`` (8/3 of ``hidden_size`` with a gate, else four times),
    ``num_key_value_heads`` (as many as query heads) and ``head_dim``.

    Raises
    ------
    ConfigError
        For an unknown field (naming the nearest), a value out of bounds or fields that do not fit.

    Examples
    --------
    >>> from omnima.config import ModelConfig
    >>> ModelConfig(vocab_size=256, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
    ...             max_position_embeddings=128).num_parameters
    114752
    """

    def __init__(self, **fields: Any) -> None:
        for name, value in _core.DecoderConfig(fields).values().items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"ModelConfig({changed})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelConfig) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.to_dict().items())))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from a mapping of field names to values."""
        return cls(**dict(values))

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, in the order of their description."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replace(self, **changes: Any) -> ModelConfig:
        """Return a copy with some fields changed; checked again."""
        return ModelConfig(**{**self.to_dict(), **changes})

    def core(self) -> _core.DecoderConfig:
        """Return the C++ configuration."""
        return _core.DecoderConfig(self.to_dict())

    @property
    def parameter_parts(self) -> dict[str, int]:
        """Exact parameter counts by part; tied weights count once, under ``embedding``."""
        hidden, layers = self.hidden_size, self.num_hidden_layers
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        inputs = 2 if is_gated(self.activation) else 1
        norm = hidden * (2 if self.norm == "layer_norm" else 1)
        attention = hidden * (queries + 2 * keys) + queries * hidden
        if self.attention_bias:
            attention += queries + 2 * keys + (hidden if self.attention_output_bias else 0)
        mlp = (inputs + 1) * hidden * self.intermediate_size
        if self.mlp_bias:
            mlp += inputs * self.intermediate_size + hidden
        experts = self.num_experts * (self.expert_parameters + hidden)
        experts += (inputs + 1) * hidden * self.shared_expert_intermediate_size
        sparse = self.expert_layers
        context = self.max_position_embeddings
        heads = 0
        if self.qk_norm:
            heads = queries + keys if self.qk_norm_over_heads else 2 * self.head_dim
        norms = 4 if self.norm_placement == "both" else 2
        positions = {
            "learned": context * hidden,
            "relative": self.relative_buckets * self.num_attention_heads,
        }.get(self.positions, 0)
        parts = {
            "embedding": self.vocab_size * hidden,
            "positions": positions,
            "attention": layers * attention,
            "mlp": (layers - sparse) * mlp + sparse * experts,
            "norms": (norms * layers + 1) * norm + layers * heads,
            "head": 0 if self.tie_word_embeddings else self.vocab_size * hidden,
        }
        if self.reward_head:
            parts["head"] = hidden
        if self.prediction_heads:
            parts["prediction_heads"] = self.prediction_heads * (mlp + norm)
        return parts

    @property
    def num_parameters(self) -> int:
        """Exact number of parameters."""
        return sum(self.parameter_parts.values())

    @property
    def expert_layers(self) -> int:
        """Number of layers with experts."""
        return int(self.num_hidden_layers // self.decoder_sparse_step if self.num_experts else 0)

    @property
    def expert_parameters(self) -> int:
        """Number of parameters of one expert."""
        inputs = 2 if is_gated(self.activation) else 1
        return int((inputs + 1) * self.hidden_size * self.moe_intermediate_size)

    @property
    def num_active_parameters(self) -> int:
        """Number of parameters that a token meets: all but those of experts it is not sent to.

        >>> from omnima.config import model_preset
        >>> mixture = model_preset("nima", vocab_size=1024, num_experts=8)
        >>> mixture.num_parameters, mixture.num_active_parameters
        (2608992, 839520)
        """
        idle = self.expert_layers * max(0, self.num_experts - self.num_experts_per_tok)
        return int(self.num_parameters - idle * self.expert_parameters)


def model_preset(name: str, vocab_size: int | None = None, **changes: Any) -> ModelConfig:
    """Return a named shape, with a vocabulary size and any field changed.

    Examples
    --------
    >>> from omnima.config import model_preset
    >>> model_preset("nima", vocab_size=1024).num_parameters
    541536
    """
    if name not in PRESETS:
        nearest = _core.nearest_name(name, list(PRESETS))
        raise ConfigError(
            f'Unknown preset "{name}"; the presets are {", ".join(PRESETS)}; the nearest is '
            f'"{nearest}".'
        )
    fields = {**PRESETS[name], **changes}
    if vocab_size is not None:
        fields["vocab_size"] = vocab_size
    return ModelConfig(**fields)


def config_for_parameters(count: int, vocab_size: int, **changes: Any) -> ModelConfig:
    """Return a Llama shape with about `count` parameters (tied ones counted once).

    The width is a multiple of 64 from 4M parameters up and of 32 below; the depth keeps the width
    near 48 times the number of layers, as published small models do; the inner width then closes
    the gap.

    Raises
    ------
    ConfigError
        When the vocabulary alone takes more than 85% of the count.

    Examples
    --------
    >>> from omnima.config import config_for_parameters
    >>> round(config_for_parameters(20_000_000, vocab_size=8192).num_parameters / 1e6)
    20
    """
    if count < 10_000:
        raise ConfigError(f"{count} parameters are too few for a language model: at least 10,000.")
    unit = 64 if count >= 4_000_000 else 32
    context = changes.pop("max_position_embeddings", 256 if count < 4_000_000 else 512)
    best: tuple[float, ModelConfig] | None = None
    for width in range(unit, 4096 + unit, unit):
        if vocab_size * width > 0.85 * count:
            break
        for layers in range(1, 49):
            config = _fit_inner(count, vocab_size, width, layers, unit, context, changes)
            if config is None:
                continue
            gap = abs(config.num_parameters - count) / count
            shape = abs(width / (48 * layers) - 1)
            inner = abs(config.intermediate_size / (width * 8 / 3) - 1)
            score = 20 * gap + shape + inner
            if best is None or score < best[0]:
                best = (score, config)
    if best is None:
        raise ConfigError(
            f"A vocabulary of {vocab_size} leaves no room in {count} parameters: take a smaller "
            f"vocabulary or at least {int(vocab_size * unit / 0.85) + 1} parameters."
        )
    return best[1]


def _fit_inner(
    count: int,
    vocab_size: int,
    width: int,
    layers: int,
    unit: int,
    context: int,
    changes: dict[str, Any],
) -> ModelConfig | None:
    """Choose the inner width so that the count is met, or None when no sensible one does."""
    head_dim = 64 if width % 64 == 0 and width > 128 else 32
    rest = count - vocab_size * width - layers * 4 * width * width
    inner = round(rest / (3 * layers * width) / unit) * unit
    if not 1.5 * width <= inner <= 4.5 * width:
        return None
    return ModelConfig(
        **{
            "vocab_size": vocab_size,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": width // head_dim,
            "max_position_embeddings": context,
            "initializer_range": initializer_for(width),
            **changes,
        }
    )
