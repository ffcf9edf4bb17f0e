"""Phi-3 and Phi-4-mini (Abdin et al. 2024): Llama with fused projections; a part of each head may
stay unturned.
"""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import Architecture, Config
from omnima.hub.architectures.llama import BLOCKS, read_llama, without, write_llama
from omnima.hub.architectures.shared import embedding_dropout, plain_heads, shared_dropout
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import WINDOW, GgufForm
from omnima.hub.naming import QKV, Names
from omnima.hub.options import PARTIAL

_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    config = read_llama(reader, share=(PARTIAL, 1.0))
    without(reader, config, "Phi-3", "attention_bias", "mlp_bias")
    if config.get("rope_scaling", "none") != "none":
        # Here "yarn" is an old name of longrope.
        scaling = reader.raw.get("rope_parameters") or reader.raw.get("rope_scaling")
        raise reader.refusal("rope_scaling", scaling, "Phi-3 for long contexts (longrope)")
    reader.account_for("original_max_position_embeddings")
    return {**config, **shared_dropout(reader, "resid_pdrop", "embd_pdrop")}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = write_llama(config, leave_out="attention_bias mlp_bias head_dim")
    fields["rope_parameters"][PARTIAL] = config[PARTIAL]
    return {
        **fields,
        PARTIAL: config[PARTIAL],
        "resid_pdrop": config["dropout"],
        "embd_pdrop": embedding_dropout(config),
        "original_max_position_embeddings": config["max_position_embeddings"],
        "sliding_window": config["sliding_window"] or None,
    }


PHI3 = Architecture(
    name="Phi3ForCausalLM",
    model_type="phi3",
    read=read,
    write=write,
    fixed=BLOCKS,
    free=frozenset({PARTIAL, "sliding_window"}),
    fits=lambda config: config[PARTIAL] < 1 and plain_heads(config),
    names=Names(
        fused={
            "self_attn.qkv_proj": QKV,
            "mlp.gate_up_proj": _GATE_UP,
        }
    ),
    gguf=GgufForm("phi3", BLOCKS, fused={"attn_qkv": QKV, "ffn_up": _GATE_UP}, keys=(WINDOW,)),
)
