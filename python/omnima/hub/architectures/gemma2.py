"""Gemma 2 (Riviere et al. 2024): norms before and after, capped scores and logits, every other
layer with a window.
"""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.gemma import (
    ACTIVATIONS,
    BLOCKS,
    norms,
    read_gemma,
    read_scale,
    scalar_of,
    scales_embeddings,
    write_gemma,
)
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import CAPS, WINDOW, GgufForm, windows_every
from omnima.hub.gguf.form import scales_embeddings as scaled
from omnima.hub.naming import Names
from omnima.hub.options import layer_types

#: Our norms of a block: theirs.
_NORMS = {
    "attention_output_layernorm": "post_attention_layernorm",
    "post_attention_layernorm": "pre_feedforward_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}
SANDWICH = {**BLOCKS, "norm_placement": "both"}
FREE = SCALING | {
    "attention_bias",
    "embedding_multiplier",
    "attention_scale",
    "sliding_window",
    "sliding_window_pattern",
    "logit_softcap",
}


def sandwich_names(*more: str) -> Names:
    """The names of a block with norms on both sides of its parts."""
    inner = ("input_layernorm", *_NORMS.values(), *more)
    return Names(block=lambda module: _NORMS.get(module, module), layouts=norms(*inner))


def read_sandwich(reader: ConfigReader, pattern: int, **options: Any) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 share; `pattern`: every n-th layer has no window."""
    pattern = reader.take("sliding_window_pattern", int, pattern)
    layers = reader.take("num_hidden_layers", int)
    kinds = layer_types(
        {"num_hidden_layers": layers, "sliding_window": 1, "sliding_window_pattern": pattern}
    )
    config = read_gemma(
        reader,
        window=4096,
        types=kinds,
        activation_field="hidden_activation",
        activations=ACTIVATIONS,
        **options,
    )
    return {
        **config,
        "norm_placement": "both",
        "attention_scale": read_scale(reader, config["head_dim"]),
        "logit_softcap": reader.take("final_logit_softcapping", float, 0.0, least=0),
    }


def write_sandwich(config: Config) -> dict[str, Any]:
    """The same fields for config.json."""
    fields = write_gemma(config)
    # transformers wants a window even where no layer has one.
    window = config["sliding_window"] or config["max_position_embeddings"]
    return {
        **fields,
        "hidden_activation": fields.pop("hidden_act"),
        "query_pre_attn_scalar": scalar_of(config),
        "final_logit_softcapping": config["logit_softcap"] or None,
        "sliding_window": window,
        "layer_types": layer_types(config),
    }


def fits(config: Config) -> bool:
    """Whether what fields alone do not say holds, too."""
    return scales_embeddings(config) and scalar_of(config) is not None


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    config = read_sandwich(reader, pattern=2)
    cap = reader.take("attn_logit_softcapping", float, 0.0, least=0)
    return {**config, "attention_softcap": cap}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    cap = config["attention_softcap"]
    return {**write_sandwich(config), "attn_logit_softcapping": cap or None}


GEMMA2 = Architecture(
    name="Gemma2ForCausalLM",
    model_type="gemma2",
    read=read,
    write=write,
    fixed=SANDWICH,
    free=FREE | {"attention_softcap"},
    assumed={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    fits=fits,
    names=sandwich_names(),
    gguf=GgufForm(
        "gemma2",
        {**SANDWICH, "sliding_window_pattern": 2},
        keys=(WINDOW, *CAPS),
        objection=windows_every(2),
        derived=scaled,
    ),
)
