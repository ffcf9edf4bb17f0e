"""What mixtures of experts share: which fields of ours say how they are trained."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import Config
from omnima.hub.config_reader import ConfigReader

TRAINING = ("router_z_loss_coef", "expert_capacity")
FIELDS = frozenset(
    {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "router_aux_loss_coef"}
    | set(TRAINING)
)


def read_training(inner: ConfigReader) -> dict[str, Any]:
    """Fields of ours that only training needs; other tools' models were trained without them."""
    return {name: inner.take(name, float, 0.0) for name in TRAINING}


def write_training(config: Config) -> dict[str, Any]:
    """The same, to be kept under "omnima"."""
    return {name: config[name] for name in TRAINING}
