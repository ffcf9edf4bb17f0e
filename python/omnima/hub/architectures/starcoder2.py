"""StarCoder2 (Lozhkov et al. 2024): LayerNorm, rotary positions, GELU, biases and a window."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import read_llama, without, write_llama
from omnima.hub.architectures.shared import (
    embedding_dropout,
    plain_heads,
    shared_dropout,
)
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.naming import Names

_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu": "gelu"}
_ACTIVATION_NAMES = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}
_MLP = {"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    biased = reader.take("use_bias", bool, True)
    config = read_llama(reader, activations=_ACTIVATIONS, eps=("norm_epsilon", 1e-5))
    without(reader, config, "StarCoder2, but for use_bias,", "attention_bias", "mlp_bias")
    return {
        **config,
        "norm": "layer_norm",
        "attention_bias": biased,
        "mlp_bias": biased,
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, True),
        **shared_dropout(reader, "residual_dropout", "embedding_dropout"),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    left_out = "attention_bias mlp_bias head_dim rms_norm_eps"
    return {
        **write_llama(config, leave_out=left_out),
        "hidden_act": _ACTIVATION_NAMES[config["activation"]],
        "norm_epsilon": config["norm_eps"],
        "use_bias": config["mlp_bias"],
        "sliding_window": config["sliding_window"] or None,
        "residual_dropout": config["dropout"],
        "embedding_dropout": embedding_dropout(config),
    }


def _objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    if config["activation"] != "gelu_tanh":
        return "there GELU is the one by tanh"
    return "there it has no windows" if config["sliding_window"] else None


STARCODER2 = Architecture(
    name="Starcoder2ForCausalLM",
    model_type="starcoder2",
    read=read,
    write=write,
    fixed={"norm": "layer_norm", "positions": "rotary"},
    free=SCALING | {"activation", "attention_bias", "mlp_bias", "sliding_window"},
    fits=lambda config: (
        config["activation"] in _ACTIVATION_NAMES
        and config["attention_bias"] == config["mlp_bias"]
        and plain_heads(config)
    ),
    names=Names(block=lambda module: _MLP.get(module, module)),
    gguf=GgufForm(
        "starcoder2",
        {"norm": "layer_norm", "positions": "rotary", "activation": "gelu_tanh"},
        objection=_objection,
    ),
)
