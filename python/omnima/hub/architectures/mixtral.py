"""Mixtral (Jiang et al. 2024): Mistral with experts."""

from __future__ import annotations

import re
from typing import Any

from omnima.hub.architectures import experts, mistral
from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, LLAMA, read_llama, without
from omnima.hub.architectures.shared import own, refuse, same
from omnima.hub.config_reader import ConfigReader
from omnima.hub.naming import Names

# Of an expert: ours, Mixtral's.
_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate_proj|down_proj|up_proj)")


def their_name(module: str) -> str:
    """Mixtral's name of a module of a block.

    >>> their_name("mlp.experts.3.up_proj")
    'block_sparse_moe.experts.3.w3'
    """
    found = _EXPERT.fullmatch(module)
    if found:
        return f"block_sparse_moe.experts.{found[1]}.{_NAMES[found[2]]}"
    return "block_sparse_moe.gate" if module == "mlp.gate" else module


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    config = without(reader, read_llama(reader), "Mixtral", "attention_bias", "mlp_bias")
    refuse(reader, "router_jitter_noise", float, 0.0, "it must be 0")
    inner = own(reader)
    return {
        **config,
        "intermediate_size": inner.take("intermediate_size", int, config["intermediate_size"]),
        "moe_intermediate_size": config["intermediate_size"],
        "num_experts": reader.take("num_local_experts", int, 8),
        "num_experts_per_tok": reader.take("num_experts_per_tok", int, 2),
        "router_aux_loss_coef": reader.take("router_aux_loss_coef", float, 0.001),
        **experts.read_training(inner),
    }


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = mistral.write(config)
    return {
        **fields,
        **same(config, "num_experts_per_tok router_aux_loss_coef"),
        "intermediate_size": config["moe_intermediate_size"],
        "num_local_experts": config["num_experts"],
        "sliding_window": config["sliding_window"] or None,
        "omnima": {
            **fields["omnima"],
            **experts.write_training(config),
            "intermediate_size": config["intermediate_size"],
        },
    }


MIXTRAL = Architecture(
    name="MixtralForCausalLM",
    model_type="mixtral",
    read=read,
    write=write,
    fixed=BLOCKS,
    free=SCALING | experts.FIELDS | {"sliding_window"},
    fits=lambda config: config["num_experts"] > 0,
    names=Names(block=their_name),
    gguf=LLAMA.gguf,
)
