"""Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values alone."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, read_llama, write_llama
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.options import layer_types

WINDOWS = frozenset({"sliding_window", "sliding_window_pattern"})


def no_windows(config: Config) -> str | None:
    """Why llama.cpp would compute other results: there it has no windows."""
    return "there it has no windows" if config["sliding_window"] else None


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    return {
        **read_qwen(reader),
        "attention_bias": True,
        "attention_output_bias": False,
        "mlp_bias": False,
    }


def read_qwen(reader: ConfigReader) -> dict[str, Any]:
    """Llama's fields as Qwen has them: a window only where it says that it uses one."""
    return read_llama(reader, window=0)


def write_windows(config: Config) -> dict[str, Any]:
    """Qwen's fields of windows."""
    slides = config["sliding_window"] > 0
    return {
        "use_sliding_window": slides,
        "sliding_window": config["sliding_window"] if slides else None,
        "max_window_layers": 0,
        "layer_types": layer_types(config),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return {**write_llama(config, leave_out="attention_bias mlp_bias"), **write_windows(config)}


QWEN2 = Architecture(
    name="Qwen2ForCausalLM",
    model_type="qwen2",
    read=read,
    write=write,
    fixed={**BLOCKS, "attention_bias": True, "attention_output_bias": False},
    free=SCALING | WINDOWS,
    gguf=GgufForm("qwen2", BLOCKS, objection=no_windows),
)
