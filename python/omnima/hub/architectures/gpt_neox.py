"""GPT-NeoX (Black et al. 2022), which Pythia is, too."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.shared import (
    GELU_NAMES,
    GELUS,
    even_head_dim,
    plain_heads,
    read_extras,
    same,
    write_extras,
)
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm, Key
from omnima.hub.layouts import ByHead
from omnima.hub.naming import QKV, Names
from omnima.hub.options import PARTIAL, read_rotary, write_rotary

_OUTER = {
    "model.embed_tokens": "gpt_neox.embed_in",
    "model.norm": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
}
_BLOCK = {
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
_FUSED = "attention.query_key_value"
_FIXED = {"norm": "layer_norm", "positions": "rotary", "attention_bias": True, "mlp_bias": True}


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    hidden = reader.take("hidden_size", int)
    heads = reader.take("num_attention_heads", int)
    context = reader.take("max_position_embeddings", int, 2048)
    if not reader.take("attention_bias", bool, True):
        raise reader.refusal("attention_bias", False, "the mlp of GPT-NeoX has biases, so must it")
    return {
        **read_extras(reader),
        **_FIXED,
        **read_rotary(reader, context, base="rotary_emb_base", share=("rotary_pct", 0.25)),
        "vocab_size": reader.take("vocab_size", int),
        "hidden_size": hidden,
        "intermediate_size": reader.take("intermediate_size", int),
        "num_hidden_layers": reader.take("num_hidden_layers", int),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": even_head_dim(reader, hidden, heads),
        "norm_eps": reader.take("layer_norm_eps", float, 1e-5),
        "activation": reader.choice("hidden_act", GELUS, "gelu"),
        "parallel_residual": reader.take("use_parallel_residual", bool, True),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, False),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        "attention_dropout": reader.take("attention_dropout", float, 0.0),
        "dropout": reader.take("hidden_dropout", float, 0.0),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    rotary = write_rotary(config)
    # Without it, transformers turns a quarter of each head.
    rotary["rope_parameters"][PARTIAL] = config[PARTIAL]
    del rotary["rope_theta"]  # under its own name
    return {
        **same(
            config,
            """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
            initializer_range tie_word_embeddings attention_dropout attention_bias""",
        ),
        "hidden_act": GELU_NAMES[config["activation"]],
        "layer_norm_eps": config["norm_eps"],
        "use_parallel_residual": config["parallel_residual"],
        "hidden_dropout": config["dropout"],
        "rotary_pct": config[PARTIAL],
        "rotary_emb_base": config["rope_theta"],
        **rotary,
        "omnima": {**write_extras(config), **rotary["omnima"]},
    }


GPT_NEOX = Architecture(
    name="GPTNeoXForCausalLM",
    model_type="gpt_neox",
    read=read,
    write=write,
    fixed=_FIXED,
    free=SCALING | {"activation", "parallel_residual", PARTIAL},
    fits=lambda config: (
        config["activation"] in GELU_NAMES
        and config["num_key_value_heads"] == config["num_attention_heads"]
        and plain_heads(config)
    ),
    names=Names(
        outer=_OUTER,
        layers="gpt_neox.layers.",
        block=lambda module: _BLOCK.get(module, module),
        fused={_FUSED: QKV},
        layouts={_FUSED: ByHead()},
    ),
    # llama.cpp has GELU by tanh here, too, where most files mean the exact one; the certificate of
    # an export says how far that goes.
    gguf=GgufForm(
        "gptneox",
        {**_FIXED, "activation": "gelu"},
        fused={"attn_qkv": QKV},
        keys=(Key("use_parallel_residual", "bool", "parallel_residual"),),
    ),
)
