"""Qwen3 (Yang et al. 2025): Llama with a norm of each query and key head."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, without, write_llama
from omnima.hub.architectures.qwen2 import WINDOWS, no_windows, read_qwen, write_windows
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm


def objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    if config["attention_bias"]:
        return "there it has no biases"
    return no_windows(config)


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    return {**without(reader, read_qwen(reader), "Qwen3", "mlp_bias"), "qk_norm": True}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return {**write_llama(config, leave_out="mlp_bias"), **write_windows(config)}


QWEN3 = Architecture(
    name="Qwen3ForCausalLM",
    model_type="qwen3",
    read=read,
    write=write,
    fixed={**BLOCKS, "qk_norm": True},
    free=SCALING | WINDOWS | {"attention_bias"},
    gguf=GgufForm("qwen3", BLOCKS, objection=objection),
)
