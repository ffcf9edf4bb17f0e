"""Nemotron (Parmar et al. 2024) and Minitron: LayerNorm of one more, squared ReLU without a gate,
and heads of which a part turns.
"""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import read_llama, without_window, write_llama
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.layouts import LessOne
from omnima.hub.naming import Names
from omnima.hub.options import PARTIAL

_FIXED = {"norm": "layer_norm", "positions": "rotary", "activation": "relu2"}
_NORMS = ("input_layernorm", "post_attention_layernorm", "model.norm")


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    relu2 = {"relu2": "relu2"}
    config = read_llama(reader, activations=relu2, eps=("norm_eps", 1e-5), share=(PARTIAL, 0.5))
    return {**without_window(reader, config, "Nemotron"), "norm": "layer_norm"}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = write_llama(config, leave_out="rms_norm_eps")
    fields["rope_parameters"][PARTIAL] = config[PARTIAL]
    return {
        **fields,
        PARTIAL: config[PARTIAL],
        "hidden_act": "relu2",
        "norm_eps": config["norm_eps"],
    }


NEMOTRON = Architecture(
    name="NemotronForCausalLM",
    model_type="nemotron",
    read=read,
    write=write,
    fixed=_FIXED,
    free=SCALING | {PARTIAL, "attention_bias", "mlp_bias"},
    names=Names(layouts={f"{norm}.weight": LessOne() for norm in _NORMS}),
    gguf=GgufForm("nemotron", _FIXED),
)
