"""Mixtures of experts: Mixtral's and Qwen3-MoE's fields, and Mixtral's parameter names, both ways.

Qwen3-MoE's names are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from omnima.hub.names import expected_shapes

if TYPE_CHECKING:
    from omnima.hub.config_reader import ConfigReader
    from omnima.hub.names import Shapes

# Of an expert: ours, Mixtral's.
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
_OURS = re.compile(r"\.mlp\.experts\.(\d+)\.(gate_proj|down_proj|up_proj)\.")
_SAME = ("num_experts_per_tok", "router_aux_loss_coef")

_Each = TypeVar("_Each")


def is_mixtral(config: Mapping[str, Any]) -> bool:
    """Whether a complete configuration with a Llama's blocks and experts is exactly a Mixtral."""
    return bool(
        _experts_only(config)
        and config["decoder_sparse_step"] == 1
        and config["norm_topk_prob"]
        and not (config["qk_norm"] or config["attention_bias"] or config["sliding_window_pattern"])
    )


def is_qwen3_moe(config: Mapping[str, Any]) -> bool:
    """Whether a complete configuration with a Llama's blocks and experts is exactly a Qwen3-MoE."""
    return bool(
        _experts_only(config) and config["qk_norm"] and not config["sliding_window_pattern"]
    )


def _experts_only(config: Mapping[str, Any]) -> bool:
    return config["num_experts"] > 0 and not config["shared_expert_intermediate_size"]


def mixtral_names(tensors: Mapping[str, _Each]) -> dict[str, _Each]:
    """Rename ours to Mixtral's.

    >>> list(mixtral_names({"model.layers.0.mlp.experts.3.up_proj.weight": 0}))
    ['model.layers.0.block_sparse_moe.experts.3.w3.weight']
    """

    def renamed(name: str) -> str:
        name = _OURS.sub(
            lambda found: f".block_sparse_moe.experts.{found[1]}.{_MIXTRAL[found[2]]}.", name
        )
        return name.replace(".mlp.gate.", ".block_sparse_moe.gate.")

    return {renamed(name): tensor for name, tensor in tensors.items()}


def mixtral_shapes(config: Mapping[str, Any]) -> Shapes:
    """Name and shape of every parameter as Mixtral's files hold them."""
    return mixtral_names(expected_shapes(config))


def from_mixtral_names(tensors: Mapping[str, _Each], config: Mapping[str, Any]) -> dict[str, _Each]:
    """Rename Mixtral's to ours: the inverse of `mixtral_names`."""
    theirs = mixtral_names({name: name for name in expected_shapes(config)})
    return {theirs[name]: tensor for name, tensor in tensors.items()}


def from_mixtral(reader: ConfigReader, llama: Mapping[str, Any]) -> dict[str, Any]:
    """A decoder's configuration from Mixtral's config.json; `llama` holds the fields they share."""
    for name in ("attention_bias", "mlp_bias"):
        if llama[name]:
            raise reader.refusal(name, True, "Mixtral has none")
    jitter = reader.take("router_jitter_noise", float, 0.0)
    if jitter:
        raise reader.refusal("router_jitter_noise", jitter, "it must be 0")
    inner = _own(reader)
    return {
        **llama,
        "intermediate_size": inner.take("intermediate_size", int, llama["intermediate_size"]),
        "moe_intermediate_size": llama["intermediate_size"],
        "num_experts": reader.take("num_local_experts", int, 8),
        "num_experts_per_tok": reader.take("num_experts_per_tok", int, 2),
        "router_aux_loss_coef": reader.take("router_aux_loss_coef", float, 0.001),
        **_training_fields(inner),
    }


def from_qwen3_moe(reader: ConfigReader, qwen3: Mapping[str, Any]) -> dict[str, Any]:
    """A decoder's configuration from Qwen3-MoE's config.json; `qwen3` holds what Qwen3 shares."""
    dense = reader.take("mlp_only_layers", list, [])
    if dense:
        raise reader.refusal("mlp_only_layers", dense, "it must be empty: see decoder_sparse_step")
    if qwen3["sliding_window_pattern"]:
        raise reader.refusal("layer_types", reader.raw["layer_types"], "Qwen3-MoE has none")
    return {
        **qwen3,
        "moe_intermediate_size": reader.take("moe_intermediate_size", int, 768),
        "num_experts": reader.take("num_experts", int, _experts_named(reader)),
        "num_experts_per_tok": reader.take("num_experts_per_tok", int, 8),
        "norm_topk_prob": reader.take("norm_topk_prob", bool, False),
        "decoder_sparse_step": reader.take("decoder_sparse_step", int, 1),
        "router_aux_loss_coef": reader.take("router_aux_loss_coef", float, 0.001),
        **_training_fields(_own(reader)),
    }


def _experts_named(reader: ConfigReader) -> int:
    """The number of experts where a file has it under Mixtral's name, as some versions write it."""
    return int(reader.take("num_local_experts", int, 128))


def _own(reader: ConfigReader) -> ConfigReader:
    extras = reader.raw.get("omnima")
    return type(reader)(extras if isinstance(extras, dict) else {}, reader.path)


def _training_fields(inner: ConfigReader) -> dict[str, Any]:
    """Fields of ours that only training needs; other tools' models were trained without them."""
    return {
        "router_z_loss_coef": inner.take("router_z_loss_coef", float, 0.0),
        "expert_capacity": inner.take("expert_capacity", float, 0.0),
    }


def to_mixtral(config: Mapping[str, Any], mistral: Mapping[str, Any]) -> dict[str, Any]:
    """Mixtral's config.json; `mistral` holds the fields they share."""
    return {
        **mistral,
        **{name: config[name] for name in _SAME},
        "intermediate_size": config["moe_intermediate_size"],
        "num_local_experts": config["num_experts"],
        "sliding_window": config["sliding_window"] or None,
        "omnima": {
            **mistral["omnima"],
            **_extras(config),
            "intermediate_size": config["intermediate_size"],
        },
    }


def to_qwen3_moe(config: Mapping[str, Any], qwen3: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen3-MoE's config.json; `qwen3` holds what Qwen3 shares."""
    same = (*_SAME, "num_experts", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step")
    theirs = {
        name: value
        for name, value in qwen3.items()
        if name not in ("layer_types", "max_window_layers")
    }
    return {
        **theirs,
        **{name: config[name] for name in same},
        "mlp_only_layers": [],
        "omnima": {**qwen3["omnima"], **_extras(config)},
    }


def _extras(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("router_z_loss_coef", "expert_capacity")}
