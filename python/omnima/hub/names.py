"""Parameter names and shapes: Omnima's (which are Llama's), GPT-2's, the way between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.config.activations import is_gated

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# Of one GPT-2 block: its name, ours. `Conv1D` weights lie [in, out] and are transposed.
_GPT2_BLOCK = {
    "ln_1.weight": "input_layernorm.weight",
    "ln_1.bias": "input_layernorm.bias",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "attn.c_proj.bias": "self_attn.o_proj.bias",
    "ln_2.weight": "post_attention_layernorm.weight",
    "ln_2.bias": "post_attention_layernorm.bias",
    "mlp.c_fc.weight": "mlp.up_proj.weight",
    "mlp.c_fc.bias": "mlp.up_proj.bias",
    "mlp.c_proj.weight": "mlp.down_proj.weight",
    "mlp.c_proj.bias": "mlp.down_proj.bias",
}
_GPT2_CONV1D = {"attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
_GPT2_OUTER = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.wpe.weight": "model.embed_positions.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "transformer.ln_f.bias": "model.norm.bias",
    "lm_head.weight": "lm_head.weight",
}
# Buffers that old files carry: constants, computed anew by every model.
_BUFFERS = re.compile(
    r"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|model\.rotary_emb\.inv_freq"
    r"|(transformer\.)?h\.\d+\.attn\.(bias|masked_bias))"
)


def is_known_buffer(name: str) -> bool:
    """Whether a tensor in a file is a constant that no model needs.

    >>> is_known_buffer("h.0.attn.bias"), is_known_buffer("h.0.attn.c_attn.bias")
    (True, False)
    """
    return _BUFFERS.fullmatch(name) is not None


def is_training_only(name: str) -> bool:
    """Whether a parameter serves training alone and is left out of a saved model.

    >>> is_training_only("prediction_heads.0.norm.weight"), is_training_only("model.norm.weight")
    (True, False)
    """
    return name.startswith("prediction_heads.")


def expected_shapes(config: Mapping[str, Any]) -> Shapes:
    """Name and shape of every parameter of a decoder with this configuration."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    if config["positions"] == "learned":
        shapes["model.embed_positions.weight"] = (config["max_position_embeddings"], hidden)
    if config["positions"] == "relative":
        buckets = config.get("relative_buckets", 32)
        shapes["model.relative_bias.weight"] = (buckets, config["num_attention_heads"])
    for layer in range(config["num_hidden_layers"]):
        sparse = (layer + 1) % config.get("decoder_sparse_step", 1) == 0
        for name, shape in _block_shapes(config, sparse).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes.update(_norm_shapes(config, "model.norm"))
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _norm_shapes(config: Mapping[str, Any], name: str) -> Shapes:
    parts = ("weight", "bias") if config["norm"] == "layer_norm" else ("weight",)
    return {f"{name}.{part}": (config["hidden_size"],) for part in parts}


def _mlp_widths(config: Mapping[str, Any], sparse: bool) -> dict[str, int]:
    """The inner width of every mlp of a block by its name: one, or the experts."""
    experts, shared = config.get("num_experts", 0), config.get("shared_expert_intermediate_size", 0)
    if not experts or not sparse:
        return {"mlp": config["intermediate_size"]}
    inner = config["moe_intermediate_size"]
    widths = {f"mlp.experts.{index}": inner for index in range(experts)}
    return {**widths, "mlp.shared_expert": shared} if shared else widths


def _block_shapes(config: Mapping[str, Any], sparse: bool) -> Shapes:
    hidden, head = config["hidden_size"], config["head_dim"]
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    shapes = _norm_shapes(config, "input_layernorm")
    shapes.update(_norm_shapes(config, "post_attention_layernorm"))
    linears = {
        "self_attn.q_proj": (queries, hidden, config["attention_bias"]),
        "self_attn.k_proj": (keys, hidden, config["attention_bias"]),
        "self_attn.v_proj": (keys, hidden, config["attention_bias"]),
        "self_attn.o_proj": (hidden, queries, config["attention_bias"]),
    }
    for mlp, inner in _mlp_widths(config, sparse).items():
        linears[f"{mlp}.up_proj"] = (inner, hidden, config["mlp_bias"])
        linears[f"{mlp}.down_proj"] = (hidden, inner, config["mlp_bias"])
        if is_gated(config["activation"]):
            linears[f"{mlp}.gate_proj"] = (inner, hidden, config["mlp_bias"])
        if mlp != "mlp":
            linears["mlp.gate"] = (config["num_experts"], hidden, False)
    if config.get("qk_norm"):
        shapes["self_attn.q_norm.weight"] = shapes["self_attn.k_norm.weight"] = (head,)
    for name, (rows, columns, bias) in linears.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def gpt2_shapes(config: Mapping[str, Any]) -> Shapes:
    """Name and shape of every parameter as GPT-2's files hold them."""
    ours = expected_shapes(config)
    hidden = config["hidden_size"]
    shapes = {theirs: ours[name] for theirs, name in _GPT2_OUTER.items() if name in ours}
    for layer in range(config["num_hidden_layers"]):
        for theirs, name in _GPT2_BLOCK.items():
            shape = ours[f"model.layers.{layer}.{name}"]
            shapes[f"transformer.h.{layer}.{theirs}"] = (
                shape[::-1] if theirs in _GPT2_CONV1D else shape
            )
        shapes[f"transformer.h.{layer}.attn.c_attn.weight"] = (hidden, 3 * hidden)
        shapes[f"transformer.h.{layer}.attn.c_attn.bias"] = (3 * hidden,)
    return shapes


def from_gpt2(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename GPT-2's tensors to ours, turning `Conv1D` weights and splitting the fused `c_attn`."""
    found = {ours: tensors[theirs] for theirs, ours in _GPT2_OUTER.items() if theirs in tensors}
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        ours_block = f"model.layers.{layer}"
        for theirs, ours in _GPT2_BLOCK.items():
            tensor = tensors[f"{block}.{theirs}"]
            turned = tensor.t().contiguous() if theirs in _GPT2_CONV1D else tensor
            found[f"{ours_block}.{ours}"] = turned
        weights = tensors[f"{block}.attn.c_attn.weight"].t().contiguous().chunk(3)
        biases = tensors[f"{block}.attn.c_attn.bias"].chunk(3)
        for part, weight, bias in zip("qkv", weights, biases, strict=True):
            found[f"{ours_block}.self_attn.{part}_proj.weight"] = weight
            found[f"{ours_block}.self_attn.{part}_proj.bias"] = bias
    return found


def to_gpt2(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename our tensors to GPT-2's: the inverse of `from_gpt2`."""
    import torch

    found = {theirs: tensors[ours] for theirs, ours in _GPT2_OUTER.items() if ours in tensors}
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        ours_block = f"model.layers.{layer}"
        for theirs, ours in _GPT2_BLOCK.items():
            tensor = tensors[f"{ours_block}.{ours}"]
            turned = tensor.t().contiguous() if theirs in _GPT2_CONV1D else tensor
            found[f"{block}.{theirs}"] = turned
        attention = [f"{ours_block}.self_attn.{part}_proj" for part in "qkv"]
        weight = torch.cat([tensors[f"{name}.weight"] for name in attention])
        found[f"{block}.attn.c_attn.weight"] = weight.t().contiguous()
        found[f"{block}.attn.c_attn.bias"] = torch.cat(
            [tensors[f"{name}.bias"] for name in attention]
        )
    return found


def with_gpt2_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the `transformer.` prefix to files saved without it (the first GPT-2 files were)."""
    if any(name.startswith("transformer.") for name in tensors):
        return dict(tensors)
    return {
        name if name == "lm_head.weight" else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
    }
