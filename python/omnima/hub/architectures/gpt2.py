"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import Architecture, Config
from omnima.hub.architectures.shared import (
    GELU_NAMES,
    GELUS,
    embedding_dropout,
    even_head_dim,
    plain_heads,
    read_extras,
    same,
    write_extras,
)
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.layouts import Transposed
from omnima.hub.naming import QKV, Names

_OUTER = {
    "model.embed_tokens": "transformer.wte",
    "model.embed_positions": "transformer.wpe",
    "model.norm": "transformer.ln_f",
}
_BLOCK = {
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
_FIXED = {"norm": "layer_norm", "positions": "learned", "attention_bias": True, "mlp_bias": True}
_TURNED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    extras = read_extras(reader)
    residual, embedding, attention = (
        reader.take(name, float, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    )
    hidden, heads = reader.take("n_embd", int, 768), reader.take("n_head", int, 12)
    return {
        **extras,
        "dropout": residual,
        "attention_dropout": attention,
        "embedding_dropout": -1.0 if embedding == residual else embedding,
        "vocab_size": reader.take("vocab_size", int, 50257),
        "hidden_size": hidden,
        "intermediate_size": reader.take("n_inner", int, 4 * hidden),
        "num_hidden_layers": reader.take("n_layer", int, 12),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": even_head_dim(reader, hidden, heads, ("n_embd", "n_head")),
        "max_position_embeddings": reader.take("n_positions", int, 1024),
        **_FIXED,
        "norm_eps": reader.take("layer_norm_epsilon", float, 1e-5),
        "rope_theta": 10000.0,
        "activation": reader.choice("activation_function", GELUS, "gelu_new"),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, True),
        "initializer_range": reader.take("initializer_range", float, 0.02),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return {
        **same(config, "vocab_size initializer_range tie_word_embeddings"),
        "n_embd": config["hidden_size"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_head": config["num_attention_heads"],
        "n_positions": config["max_position_embeddings"],
        "layer_norm_epsilon": config["norm_eps"],
        "activation_function": GELU_NAMES[config["activation"]],
        "resid_pdrop": config["dropout"],
        "embd_pdrop": embedding_dropout(config),
        "attn_pdrop": config["attention_dropout"],
        "omnima": write_extras(config),
    }


GPT2 = Architecture(
    name="GPT2LMHeadModel",
    model_type="gpt2",
    read=read,
    write=write,
    fixed=_FIXED,
    free=frozenset({"activation"}),
    fits=lambda config: (
        config["activation"] in GELU_NAMES
        and config["num_key_value_heads"] == config["num_attention_heads"]
        and plain_heads(config)
    ),
    names=Names(
        outer=_OUTER,
        layers="transformer.h.",
        block=lambda module: _BLOCK.get(module, module),
        fused={"attn.c_attn": QKV},
        layouts={f"{module}.weight": Transposed() for module in _TURNED},
    ),
    gguf=GgufForm(
        "gpt2",
        {**_FIXED, "activation": "gelu_tanh"},
        fused={"attn_qkv": QKV},
        objection=lambda config: (
            None if config["activation"] == "gelu_tanh" else "there GELU is the one by tanh"
        ),
    ),
)
