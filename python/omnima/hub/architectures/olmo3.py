"""OLMo 3 (2025): OLMo 2 with windows on three of four layers; the others' positions may stretch."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.olmo2 import FIXED, NAMES, read_olmo
from omnima.hub.architectures.olmo2 import write as write_olmo2
from omnima.hub.architectures.qwen2 import WINDOWS
from omnima.hub.architectures.shared import plain_heads
from omnima.hub.config_reader import ConfigReader
from omnima.hub.options import layer_types, read_local_rotary, write_local_rotary

_THETA = 5e5


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    local = read_local_rotary(reader, theta=_THETA, local_theta=None)
    layers = reader.take("num_hidden_layers", int)
    kinds = layer_types(
        {"num_hidden_layers": layers, "sliding_window": 1, "sliding_window_pattern": 4}
    )
    config = read_olmo(reader, window=4096, types=kinds, theta=_THETA, keep_window=True)
    # Only where positions stretch do those of the windows differ.
    if local != config["rope_theta"] or config.get("rope_scaling", "none") != "none":
        return {**config, "rope_local_theta": local if config["sliding_window"] else 0.0}
    if config["sliding_window"] >= config["max_position_embeddings"]:
        config.update(sliding_window=0, sliding_window_pattern=0)
    return config


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = {**write_olmo2(config), "layer_types": layer_types(config)}
    fields["sliding_window"] = config["sliding_window"]
    return write_local_rotary(fields, config)


OLMO3 = Architecture(
    name="Olmo3ForCausalLM",
    model_type="olmo3",
    read=read,
    write=write,
    fixed=FIXED,
    free=SCALING | WINDOWS | {"attention_bias", "rope_local_theta"},
    fits=lambda config: config["sliding_window"] > 0 and plain_heads(config),
    names=NAMES,
)
