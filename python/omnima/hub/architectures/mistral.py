"""Mistral (Jiang et al. 2023): Llama with a sliding window and without biases."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, LLAMA, read_llama, write_llama
from omnima.hub.config_reader import ConfigReader

WINDOW = 4096  # of transformers, where a file does not say


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    return read_llama(reader, window=WINDOW)


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = write_llama(config, leave_out="attention_bias mlp_bias")
    return {**fields, "sliding_window": config["sliding_window"]}


MISTRAL = Architecture(
    name="MistralForCausalLM",
    model_type="mistral",
    read=read,
    write=write,
    fixed=BLOCKS,
    free=SCALING | {"sliding_window"},
    fits=lambda config: config["sliding_window"] > 0,
    gguf=LLAMA.gguf,
)
