"""GPT-NeoX: its fields and parameter names, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.hub.names import Shapes, expected_shapes
from omnima.hub.options import read_rotary, write_rotary

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.hub.config_reader import ConfigReader

_OUTER = {
    "gpt_neox.embed_in.weight": "model.embed_tokens.weight",
    "gpt_neox.final_layer_norm.weight": "model.norm.weight",
    "gpt_neox.final_layer_norm.bias": "model.norm.bias",
    "embed_out.weight": "lm_head.weight",
}
_BLOCK = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    "attention.dense": "self_attn.o_proj",
    "mlp.dense_h_to_4h": "mlp.up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
_FUSED = "attention.query_key_value"
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def from_neox(reader: ConfigReader, extras: Mapping[str, Any]) -> dict[str, Any]:
    """A decoder's configuration from GPT-NeoX's config.json."""
    hidden = reader.take("hidden_size", int)
    heads = reader.take("num_attention_heads", int)
    if hidden % heads:
        raise reader.refusal("num_attention_heads", heads, f"hidden_size is {hidden}")
    rotary = read_rotary(
        reader, reader.take("max_position_embeddings", int, 2048), "rotary_emb_base", "rotary_pct"
    )
    if not reader.take("attention_bias", bool, True):
        raise reader.refusal("attention_bias", False, "the mlp of GPT-NeoX has biases, so must it")
    residual = reader.take("hidden_dropout", float, 0.0)
    return {
        **extras,
        "vocab_size": reader.take("vocab_size", int),
        "hidden_size": hidden,
        "intermediate_size": reader.take("intermediate_size", int),
        "num_hidden_layers": reader.take("num_hidden_layers", int),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "norm": "layer_norm",
        "norm_eps": reader.take("layer_norm_eps", float, 1e-5),
        "positions": "rotary",
        **rotary,
        "activation": reader.choice("hidden_act", _ACTIVATIONS, "gelu"),
        "attention_bias": True,
        "mlp_bias": True,
        "parallel_residual": reader.take("use_parallel_residual", bool, True),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, False),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        "attention_dropout": reader.take("attention_dropout", float, 0.0),
        "dropout": residual,
    }


def is_neox(config: Mapping[str, Any]) -> bool:
    """Whether a complete configuration is exactly a GPT-NeoX."""
    return bool(
        config["norm"] == "layer_norm"
        and config["positions"] == "rotary"
        and config["activation"] in ("gelu", "gelu_tanh")
        and config["attention_bias"]
        and config["mlp_bias"]
        and config["num_key_value_heads"] == config["num_attention_heads"]
        and config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
        and not (config["qk_norm"] or config["sliding_window"] or config["num_experts"])
    )


def to_neox(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of config.json; those that GPT-NeoX lacks are under "omnima"."""
    same = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    initializer_range tie_word_embeddings attention_dropout attention_bias""".split()
    rotary = write_rotary(config)
    # Without it, transformers turns a quarter of each head.
    rotary["rope_parameters"]["partial_rotary_factor"] = 1.0
    del rotary["rope_theta"]  # under its own name
    return {
        **{key: config[key] for key in same},
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new"}[config["activation"]],
        "layer_norm_eps": config["norm_eps"],
        "use_parallel_residual": config["parallel_residual"],
        "hidden_dropout": config["dropout"],
        "rotary_pct": 1.0,
        "rotary_emb_base": config["rope_theta"],
        **rotary,
    }


def neox_shapes(config: Mapping[str, Any]) -> Shapes:
    """Name and shape of every parameter as GPT-NeoX's files hold them."""
    ours = expected_shapes(config)
    hidden = config["hidden_size"]
    shapes = {theirs: ours[name] for theirs, name in _OUTER.items() if name in ours}
    for layer in range(config["num_hidden_layers"]):
        at = f"gpt_neox.layers.{layer}."
        for theirs, name in _BLOCK.items():
            for part in ("weight", "bias"):
                shapes[f"{at}{theirs}.{part}"] = ours[f"model.layers.{layer}.{name}.{part}"]
        shapes[f"{at}{_FUSED}.weight"] = (3 * hidden, hidden)
        shapes[f"{at}{_FUSED}.bias"] = (3 * hidden,)
    return shapes


def tensors_from_neox(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Rename to ours; each head's queries, keys and values, which lie together, are parted."""
    heads, width = config["num_attention_heads"], config["head_dim"]
    found = {ours: tensors[theirs] for theirs, ours in _OUTER.items() if theirs in tensors}
    for layer in range(config["num_hidden_layers"]):
        at, ours_at = f"gpt_neox.layers.{layer}.", f"model.layers.{layer}."
        for part in ("weight", "bias"):
            for theirs, ours in _BLOCK.items():
                found[f"{ours_at}{ours}.{part}"] = tensors[f"{at}{theirs}.{part}"]
            fused = tensors[f"{at}{_FUSED}.{part}"]
            by_head = fused.reshape(heads, 3, width, *fused.shape[1:])
            for index, name in enumerate("qkv"):
                one = by_head[:, index].reshape(heads * width, *fused.shape[1:])
                found[f"{ours_at}self_attn.{name}_proj.{part}"] = one.contiguous()
    return found


def tensors_to_neox(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename our tensors to GPT-NeoX's: the inverse of `tensors_from_neox`."""
    import torch

    heads, width = config["num_attention_heads"], config["head_dim"]
    found = {theirs: tensors[ours] for theirs, ours in _OUTER.items() if ours in tensors}
    for layer in range(config["num_hidden_layers"]):
        at, ours_at = f"gpt_neox.layers.{layer}.", f"model.layers.{layer}."
        for part in ("weight", "bias"):
            for theirs, ours in _BLOCK.items():
                found[f"{at}{theirs}.{part}"] = tensors[f"{ours_at}{ours}.{part}"]
            parts = [tensors[f"{ours_at}self_attn.{name}_proj.{part}"] for name in "qkv"]
            by_head = [one.reshape(heads, width, *one.shape[1:]) for one in parts]
            fused = torch.stack(by_head, 1)
            found[f"{at}{_FUSED}.{part}"] = fused.reshape(3 * heads * width, *parts[0].shape[1:])
    return found
