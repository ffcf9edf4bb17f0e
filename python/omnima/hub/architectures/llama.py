"""Llama 2 and 3 (Touvron et al. 2023), which SmolLM2, TinyLlama and many others are, too; and the
fields that its kin share.
"""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.shared import SILU, head_dim, read_extras, same, write_extras
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.options import read_rotary, read_windows, write_rotary


def read_llama(
    reader: ConfigReader,
    *,
    window: int = 0,
    types: list[str] | None = None,
    keep_window: bool = False,
    activation_field: str = "hidden_act",
    activations: dict[str, str] = SILU,
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6),
    **rotary: Any,
) -> dict[str, Any]:
    """Llama's fields, which many others share.

    `window` and `types` are the family's own window and kinds of attention by layer, where a file
    has none, and `keep_window` says whether one matters that covers the context. `activations` are
    its names of ours, the usual one first; `eps` is the name and the default of what norms add. The
    rest goes to `read_rotary`.
    """
    extras = read_extras(reader)
    hidden = reader.take("hidden_size", int)
    heads = reader.take("num_attention_heads", int)
    layers = reader.take("num_hidden_layers", int)
    context = reader.take("max_position_embeddings", int, 2048)
    turns = read_rotary(reader, context, **rotary)
    return {
        "vocab_size": reader.take("vocab_size", int),
        "hidden_size": hidden,
        "intermediate_size": reader.take("intermediate_size", int),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": reader.take("num_key_value_heads", int, heads),
        "head_dim": head_dim(reader, hidden, heads),
        "norm": "rms_norm",
        "norm_eps": reader.take(eps[0], float, eps[1]),
        "positions": "rotary",
        **turns,
        **read_windows(
            reader, layers, turns["max_position_embeddings"], window, types, keep_window
        ),
        "activation": reader.choice(activation_field, activations, next(iter(activations))),
        "attention_bias": reader.take("attention_bias", bool, False),
        "mlp_bias": reader.take("mlp_bias", bool, False),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, False),
        "attention_dropout": reader.take("attention_dropout", float, 0.0),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        **extras,
    }


def write_llama(config: Config, leave_out: str = "") -> dict[str, Any]:
    """The same fields for config.json, but for those to be left out."""
    rotary = write_rotary(config)
    fields = {
        **same(
            config,
            """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
            num_key_value_heads head_dim attention_bias mlp_bias tie_word_embeddings
            initializer_range attention_dropout""",
        ),
        "hidden_act": "silu",
        "rms_norm_eps": config["norm_eps"],
        **rotary,
        "omnima": {**write_extras(config), **rotary["omnima"]},
    }
    return {key: value for key, value in fields.items() if key not in leave_out.split()}


def without(
    reader: ConfigReader, config: dict[str, Any], name: str, *fields: str
) -> dict[str, Any]:
    """The configuration, refused where fields are on that the architecture does not have."""
    for field in fields:
        if config[field]:
            raise reader.refusal(field, config[field], f"{name} has none")
    return config


def without_window(reader: ConfigReader, config: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields, refused where a window is on that the architecture does not have."""
    if config["sliding_window"]:
        window = reader.raw["sliding_window"]
        raise reader.refusal("sliding_window", window, f"{name} has none; is this Mistral?")
    return config


def _unheeded(config: Config) -> str | None:
    """Why llama.cpp would compute other results: there it has no windows."""
    if not config["sliding_window"]:
        return None
    window = config["sliding_window"]
    return f"there it has no windows (with max_position_embeddings {window} this one needs none)"


#: What all of them are.
BLOCKS = {"norm": "rms_norm", "positions": "rotary", "activation": "swiglu"}

LLAMA = Architecture(
    name="LlamaForCausalLM",
    model_type="llama",
    read=lambda reader: without_window(reader, read_llama(reader), "Llama"),
    write=write_llama,
    fixed=BLOCKS,
    free=SCALING | {"attention_bias", "mlp_bias"},
    gguf=GgufForm("llama", BLOCKS, interleaved=True, objection=_unheeded),
)
