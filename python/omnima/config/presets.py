"""Named model shapes. Widths are multiples of 64 from ``5m`` up, as quantization blocks need."""

from __future__ import annotations

from typing import Any


def initializer_for(hidden_size: int) -> float:
    """Return the spread of the first weights: 1/sqrt(width).

    With GPT-2's 0.02, made for a width of 768 and more, a narrow model takes far longer to learn to
    look back (measured: docs/explanation/what-a-step-does.md).
    """
    return float(round(hidden_size**-0.5, 4))


def _llama(
    hidden: int, inner: int, layers: int, heads: int, context: int, **more: Any
) -> dict[str, Any]:
    return {
        "initializer_range": initializer_for(hidden),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        **more,
    }


#: Preset name to fields of :class:`omnima.config.ModelConfig`; all but ``gpt2`` take a
#: vocabulary size.
PRESETS: dict[str, dict[str, Any]] = {
    "nima": _llama(96, 256, 4, 3, 256),  # 0.54M with 1,024 tokens
    "1m": _llama(128, 320, 4, 4, 256),  # 1.0M with 2,048 tokens
    "5m": _llama(256, 640, 6, 4, 512),  # 5.0M with 2,048 tokens
    "10m": _llama(384, 832, 6, 6, 512),  # 10.1M with 2,048 tokens
    "35m": _llama(512, 1344, 10, 8, 1024),  # 35.3M with 8,192 tokens
    "125m": _llama(768, 2048, 12, 12, 1024),  # 123.5M with 50,257 tokens
    "355m": _llama(1024, 2816, 24, 16, 2048),  # 360M with 50,257 tokens
    "1b": _llama(2048, 8192, 16, 32, 2048, num_key_value_heads=8),  # 1.04B with 32,000 tokens
    "gpt2": _llama(
        768,
        3072,
        12,
        12,
        1024,
        vocab_size=50257,
        norm="layer_norm",
        positions="learned",
        activation="gelu_tanh",
        attention_bias=True,
        mlp_bias=True,
        initializer_range=0.02,
    ),
}
