"""Qwen3-MoE (Yang et al. 2025): Qwen3 with experts. The names of its parameters are ours."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures import experts, qwen3
from omnima.hub.architectures.base import SCALING, Architecture, Config
from omnima.hub.architectures.llama import BLOCKS
from omnima.hub.architectures.shared import own, same
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    config = qwen3.read(reader)
    dense = reader.take("mlp_only_layers", list, [])
    if dense:
        raise reader.refusal("mlp_only_layers", dense, "it must be empty: see decoder_sparse_step")
    if config["sliding_window_pattern"]:
        raise reader.refusal("layer_types", reader.raw["layer_types"], "Qwen3-MoE has none")
    return {
        **config,
        "moe_intermediate_size": reader.take("moe_intermediate_size", int, 768),
        "num_experts": reader.take("num_experts", int, _experts_named(reader)),
        "num_experts_per_tok": reader.take("num_experts_per_tok", int, 8),
        "norm_topk_prob": reader.take("norm_topk_prob", bool, False),
        "decoder_sparse_step": reader.take("decoder_sparse_step", int, 1),
        "router_aux_loss_coef": reader.take("router_aux_loss_coef", float, 0.001),
        **experts.read_training(own(reader)),
    }


def _experts_named(reader: ConfigReader) -> int:
    """The number of experts where a file has it under Mixtral's name, as some versions write it."""
    return int(reader.take("num_local_experts", int, 128))


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    fields = qwen3.write(config)
    for name in ("layer_types", "max_window_layers"):
        del fields[name]
    return {
        **fields,
        **same(
            config,
            """num_experts num_experts_per_tok moe_intermediate_size norm_topk_prob
            decoder_sparse_step router_aux_loss_coef""",
        ),
        "mlp_only_layers": [],
        "omnima": {**fields["omnima"], **experts.write_training(config)},
    }


QWEN3_MOE = Architecture(
    name="Qwen3MoeForCausalLM",
    model_type="qwen3_moe",
    read=read,
    write=write,
    fixed={**BLOCKS, "qk_norm": True},
    free=SCALING
    | experts.FIELDS
    | {"attention_bias", "sliding_window", "norm_topk_prob", "decoder_sparse_step"},
    fits=lambda config: config["num_experts"] > 0,
    gguf=GgufForm("qwen3moe", BLOCKS, expert_width=True, objection=qwen3.objection),
)
