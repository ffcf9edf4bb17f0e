"""What the readers and writers of config.json of several architectures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnima.errors import DataError
from omnima.hub.config_reader import ConfigReader

_EXTRAS = ("dropout", "embedding_dropout", "layer_drop", "depth_scaled_init")
GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
GELU_NAMES = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
SILU = {"silu": "swiglu", "swish": "swiglu"}


def own(reader: ConfigReader) -> ConfigReader:
    """The fields that only we have, under "omnima" in files that we wrote."""
    extras = reader.raw.get("omnima")
    return ConfigReader(extras if isinstance(extras, dict) else {}, reader.path)


def read_extras(reader: ConfigReader) -> dict[str, Any]:
    """Fields that only training needs, kept by our own files."""
    inner = own(reader)
    return {
        "dropout": inner.take("dropout", float, 0.0),
        "embedding_dropout": inner.take("embedding_dropout", float, -1.0),
        "layer_drop": inner.take("layer_drop", float, 0.0),
        "depth_scaled_init": inner.take("depth_scaled_init", bool, True),
    }


def write_extras(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same, to be kept under "omnima"."""
    return {key: config[key] for key in _EXTRAS}


def shared_dropout(reader: ConfigReader, residual: str, embedding: str) -> dict[str, Any]:
    """Dropouts under the architecture's own names; ours has -1 for an embedding's like the rest."""
    rest, first = reader.take(residual, float, 0.0), reader.take(embedding, float, 0.0)
    return {"dropout": rest, "embedding_dropout": -1.0 if first == rest else first}


def embedding_dropout(config: Mapping[str, Any]) -> float:
    """The dropout after the embedding, said out."""
    rate = float(config["embedding_dropout"])
    return float(config["dropout"]) if rate < 0 else rate


def even_head_dim(
    reader: ConfigReader,
    hidden: int,
    heads: int,
    names: tuple[str, str] = ("hidden_size", "num_attention_heads"),
) -> int:
    """The width of a head where a file has no field for it."""
    if hidden % heads:
        raise DataError(
            f"{reader.path}: {names[0]} {hidden} is not a multiple of {names[1]} {heads}."
        )
    return hidden // heads


def head_dim(reader: ConfigReader, hidden: int, heads: int) -> int:
    """The width of a head: the file's, or an even share of the hidden size."""
    if reader.raw.get("head_dim") is not None:
        return int(reader.take("head_dim", int))
    reader.account_for("head_dim")
    return even_head_dim(reader, hidden, heads)


def plain_heads(config: Mapping[str, Any]) -> bool:
    """Whether the heads share the hidden size evenly."""
    return bool(config["head_dim"] * config["num_attention_heads"] == config["hidden_size"])


def same(config: Mapping[str, Any], names: str) -> dict[str, Any]:
    """Fields that a file has under our names."""
    return {key: config[key] for key in names.split()}


def refuse(reader: ConfigReader, name: str, kind: type, off: Any, advice: str) -> None:
    """Refuse a feature that is on, and that is not built here."""
    value = reader.take(name, kind, off)
    if value != off:
        raise reader.refusal(name, value, advice)
