"""Arcee (AFM, 2025): Llama with an mlp of squared ReLU and no gate."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, read_llama, without_window, write_llama
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm

_FIXED = {**BLOCKS, "activation": "relu2"}


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    config = read_llama(reader, activations={"relu2": "relu2"}, eps=("rms_norm_eps", 1e-5))
    return without_window(reader, config, "Arcee")


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return {**write_llama(config), "hidden_act": "relu2"}


ARCEE = Architecture(
    name="ArceeForCausalLM",
    model_type="arcee",
    read=read,
    write=write,
    fixed=_FIXED,
    free=SCALING | {"attention_bias", "mlp_bias"},
    gguf=GgufForm("arcee", _FIXED, interleaved=True),
)
