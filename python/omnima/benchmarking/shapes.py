"""What is measured: a model's shape with its batch, and the arithmetic that a step of it needs."""

from __future__ import annotations

import dataclasses
from typing import Any

from omnima.config.activations import is_gated
from omnima.errors import ConfigError

#: The shapes of the published tables: preset name to the model's fields, context and batch.
SHAPES: dict[str, dict[str, int]] = {
    "bench-1.9m": {
        "width": 128, "layers": 4, "heads": 4, "vocab": 8192, "context": 128, "rows": 32,
    },
    "bench-13.9m": {
        "width": 384, "layers": 6, "heads": 6, "vocab": 8192, "context": 256, "rows": 16,
    },
    "bench-13.9m-long": {
        "width": 384, "layers": 6, "heads": 6, "vocab": 8192, "context": 4096, "rows": 1,
    },
    "bench-124m": {
        "width": 768, "layers": 12, "heads": 12, "vocab": 50304, "context": 512, "rows": 4,
    },
}  # fmt: skip
_VOCABULARY = 8192
_ROWS = 8
_LONGEST = 1 << 24


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and the batch it is measured with.

    Parameters
    ----------
    name
        The preset, or the number of parameters.
    model
        The fields of :class:`omnima.ModelConfig`; its context is the benchmark's.
    batch_size
        Rows of a batch.
    """

    name: str
    model: dict[str, Any]
    batch_size: int

    @property
    def context(self) -> int:
        """Tokens in a row."""
        return int(self.model["max_position_embeddings"])

    @property
    def tokens(self) -> int:
        """Tokens in a batch."""
        return self.batch_size * self.context

    @property
    def gelu_width(self) -> int:
        """The inner width of a GELU block with as many weights as the model's own block."""
        inner = int(self.model["intermediate_size"])
        if self.model["activation"] != "swiglu":
            return inner
        return max(8, round(inner * 3 / 16) * 8)  # whole vectors: an odd width would be unfair

    @property
    def swiglu_width(self) -> int:
        """The inner width of a SwiGLU block with as many weights as the model's own block."""
        inner = int(self.model["intermediate_size"])
        return inner if self.model["activation"] == "swiglu" else round(inner / 12) * 8

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of the products of one batch's forward pass.

        Two for each weight of a matrix and token, and what the attention sees of its lower
        triangle; looking up embeddings, norms and activations count nothing.
        """
        m = self.model
        queries = m["num_attention_heads"] * m["head_dim"]
        keys = m["num_key_value_heads"] * m["head_dim"]
        hidden, layers = m["hidden_size"], m["num_hidden_layers"]
        attention = hidden * (2 * queries + 2 * keys)
        weights = layers * attention + self._mlp_weights() + m["vocab_size"] * hidden
        heads = m.get("prediction_heads", 0)  # beside that of the next token
        weights += heads * (3 * hidden * self.swiglu_width + m["vocab_size"] * hidden)
        scores = 2 * m["head_dim"] * self._seen_pairs() / self.context  # two products
        return float(2 * self.tokens * (weights + scores))

    def _seen_pairs(self) -> float:
        """Pairs of a query and a key that it sees in a row, of all layers and heads."""
        from omnima import _core

        sees = ("sliding_", "blocksparse_", "dense_attention_")
        fields = {name: value for name, value in self.model.items() if name.startswith(sees)}
        heads = self.model["num_attention_heads"]
        return _core.DecoderConfig(
            {
                **fields,
                "num_hidden_layers": self.model["num_hidden_layers"],
                "num_attention_heads": heads,
                "hidden_size": heads,
                "vocab_size": 1,
                "positions": "none",
                "max_position_embeddings": _LONGEST,  # what is seen may be wider than these rows
            }
        ).seen_pairs(self.context)

    def _mlp_weights(self) -> int:
        """Weights of the mlps of all layers that a token meets: its experts alone."""
        m = self.model
        hidden, layers = m["hidden_size"], m["num_hidden_layers"]
        experts = m.get("num_experts", 0)
        sparse = layers // m["decoder_sparse_step"] if experts else 0
        dense = 3 * hidden * self.swiglu_width
        if not sparse:
            return int(layers * dense)
        inner = m["num_experts_per_tok"] * m["moe_intermediate_size"]
        inner += m["shared_expert_intermediate_size"]
        matrices = 3 if is_gated(m["activation"]) else 2
        return int((layers - sparse) * dense + sparse * hidden * (matrices * inner + experts))

    def flops(self, task: str) -> float:
        """Operations of a step: backward takes twice those of forward."""
        return self.forward_flops * (3 if task == "train" else 1)

    def memory(self, task: str) -> float:
        """A careful estimate, in bytes, of what the hungriest system needs for it."""
        m = self.model
        hidden, layers = m["hidden_size"], m["num_hidden_layers"]
        weights = layers * (4 * hidden * hidden + 3 * hidden * self.swiglu_width)
        weights += m["vocab_size"] * hidden
        logits = 12.0 * self.tokens * m["vocab_size"]
        if task != "train":
            return float(5e8 + 6.0 * weights + logits)
        kept = 4.0 * self.tokens * layers * (16 * hidden + 4 * self.swiglu_width)
        return float(5e8 + 20.0 * weights + logits + kept)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {"name": self.name, "model": self.model, "batch_size": self.batch_size}


def shape_of(
    preset: str | None = None,
    params: int | None = None,
    *,
    vocab_size: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
) -> Shape:
    """Return the shape of a preset or of a number of parameters; what is given wins.

    Without a preset and a number it is `bench-13.9m`.

    Raises
    ------
    ConfigError
        For an unknown preset, both a preset and a number, or a size that is not positive.

    Examples
    --------
    >>> shape = shape_of("bench-13.9m", batch_size=4)
    >>> shape.tokens, round(shape.flops("train") / 1e9)
    (1024, 88)
    """
    sizes = {"vocab_size": vocab_size, "context": context, "batch_size": batch_size}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1.")
    if preset is not None and params is not None:
        raise ConfigError("preset and params both name a size: drop one.")
    changes: dict[str, Any] = {}
    if context is not None:
        changes["max_position_embeddings"] = context
    if params is not None:
        from omnima.config import config_for_parameters

        config = config_for_parameters(params, vocab_size or _VOCABULARY, **changes)
        return Shape(f"{params / 1e6:g}M", config.to_dict(), batch_size or _ROWS)
    return _preset(preset or "bench-13.9m", vocab_size, batch_size, changes)


def _preset(
    name: str, vocab_size: int | None, batch_size: int | None, changes: dict[str, Any]
) -> Shape:
    from omnima.config import PRESETS, ModelConfig, model_preset

    if name in PRESETS:
        if vocab_size is None and "vocab_size" not in PRESETS[name]:
            vocab_size = _VOCABULARY
        config = model_preset(name, vocab_size=vocab_size, **changes)
        return Shape(name, config.to_dict(), batch_size or _ROWS)
    if name not in SHAPES:
        raise ConfigError(
            f'Unknown preset "{name}"; the presets are {", ".join([*SHAPES, *PRESETS])}.'
        )
    shape = SHAPES[name]
    config = ModelConfig(
        **{
            "vocab_size": vocab_size or shape["vocab"],
            "hidden_size": shape["width"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
            "max_position_embeddings": shape["context"],
            **changes,
        }
    )
    return Shape(name, config.to_dict(), batch_size or shape["rows"])
