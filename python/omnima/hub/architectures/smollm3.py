"""SmolLM3 (Bakouch et al. 2025): Llama with layers, every fourth, that heed no positions."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, read_llama, write_llama
from omnima.hub.architectures.shared import plain_heads, refuse
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm


def turned_layers(interval: int, layers: int) -> list[int]:
    """Which layers have rotary positions, as a file lists it.

    >>> turned_layers(2, 5)
    [1, 0, 1, 0, 1]
    """
    return [int(interval == 0 or (layer + 1) % interval != 0) for layer in range(layers)]


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    refuse(reader, "use_sliding_window", bool, False, "a window on layers without positions")
    config = read_llama(reader, theta=2e6)
    layers = config["num_hidden_layers"]
    interval = reader.take("no_rope_layer_interval", int, 4)
    given = reader.take("no_rope_layers", list, turned_layers(interval, layers))[:layers]
    for each in (0, *range(2, layers + 1)):
        if turned_layers(each, layers) == given:
            return {**config, "no_rope_layer_interval": each}
    raise reader.refusal("no_rope_layers", given, "0 must stand at every n-th layer, or nowhere")


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    interval, layers = config["no_rope_layer_interval"], config["num_hidden_layers"]
    return {
        **write_llama(config, leave_out="head_dim"),
        "no_rope_layer_interval": interval or layers + 1,
        "no_rope_layers": turned_layers(interval, layers),
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": ["full_attention"] * layers,
    }


def _objection(config: Config) -> str | None:
    """Why llama.cpp would compute other results."""
    if config["no_rope_layer_interval"] != 4:
        return "there every 4th layer has no positions"
    biased = config["attention_bias"] or config["mlp_bias"]
    return "there it has no biases" if biased else None


SMOLLM3 = Architecture(
    name="SmolLM3ForCausalLM",
    model_type="smollm3",
    read=read,
    write=write,
    fixed=BLOCKS,
    free=SCALING | {"attention_bias", "mlp_bias", "no_rope_layer_interval"},
    fits=lambda config: config["no_rope_layer_interval"] > 0 and plain_heads(config),
    gguf=GgufForm(
        "smollm3",
        {**BLOCKS, "no_rope_layer_interval": 4},
        interleaved=True,
        objection=_objection,
    ),
)
