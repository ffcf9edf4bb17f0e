"""The names and shapes of our parameters, which are Llama's where it has them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnima.config.activations import is_gated
from omnima.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# Buffers that old files carry: constants, computed anew by every model.
_BUFFERS = re.compile(
    r"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|model\.rotary_emb\.inv_freq"
    r"|(gpt_neox\.)?layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"
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
    blocks = {sparse: _block_shapes(config, sparse) for sparse in (False, True)}
    for layer in range(config["num_hidden_layers"]):
        sparse = (layer + 1) % config.get("decoder_sparse_step", 1) == 0
        for name, shape in blocks[sparse].items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes.update(_norm_shapes(config, "model.norm"))
    if config.get("reward_head"):
        shapes["score.weight"] = (1, hidden)
    elif not config["tie_word_embeddings"]:
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
    placement = config.get("norm_placement", "before")
    norms = ["input_layernorm", "post_attention_layernorm"] if placement != "after" else []
    if placement != "before":
        norms += ["attention_output_layernorm", "mlp_output_layernorm"]
    shapes: Shapes = {}
    for norm in norms:
        shapes.update(_norm_shapes(config, norm))
    bias = config["attention_bias"]
    linears = {
        "self_attn.q_proj": (queries, hidden, bias),
        "self_attn.k_proj": (keys, hidden, bias),
        "self_attn.v_proj": (keys, hidden, bias),
        "self_attn.o_proj": (hidden, queries, bias and config.get("attention_output_bias", True)),
    }
    for mlp, inner in _mlp_widths(config, sparse).items():
        linears[f"{mlp}.up_proj"] = (inner, hidden, config["mlp_bias"])
        linears[f"{mlp}.down_proj"] = (hidden, inner, config["mlp_bias"])
        if is_gated(config["activation"]):
            linears[f"{mlp}.gate_proj"] = (inner, hidden, config["mlp_bias"])
        if mlp != "mlp":
            linears["mlp.gate"] = (config["num_experts"], hidden, False)
    if config.get("qk_norm"):
        whole = config.get("qk_norm_over_heads")
        shapes["self_attn.q_norm.weight"] = (queries if whole else head,)
        shapes["self_attn.k_norm.weight"] = (keys if whole else head,)
    for name, (rows, columns, bias) in linears.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def check_shapes(found: Mapping[str, Sequence[int]], expected: Shapes, where: str) -> None:
    """DataError where tensors are missing, unexpected or of another shape."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        hint = ""
        if "lm_head.weight" in missing or "embed_out.weight" in missing:
            hint = " The head is untied by the configuration: is tie_word_embeddings right?"
        raise DataError(
            f"{where}: the tensors do not fit the configuration. Missing: {some(missing)}. "
            f"Unexpected: {some(unexpected)}.{hint}"
        )
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise DataError(
                f'{where}, tensor "{name}": its shape is {tuple(found[name])}, but the '
                f"configuration asks for {shape}."
            )


def to_be_saved(
    config: Mapping[str, Any], parameters: Iterable[tuple[str, Tensor]], where: str
) -> dict[str, Tensor]:
    """The parameters of a model but for those that serve training alone; DataError where they do
    not fit its configuration.
    """
    found = {name: each.detach() for name, each in parameters if not is_training_only(name)}
    shapes = {name: tuple(each.shape) for name, each in found.items()}
    check_shapes(shapes, expected_shapes(config), where)
    return found


def some(items: list[str]) -> str:
    """The first of a list of names."""
    shown = ", ".join(items[:8]) or "none"
    return shown + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def report_nonfinite(found: list[str], where: str, strict: bool) -> None:
    """Warn of parameters that hold NaN or infinity, or refuse them."""
    if not found:
        return
    text = f"{where}: NaN or infinity in {some(found)}."
    if strict:
        raise DataError(text + " The model is damaged; take an earlier checkpoint.")
    warnings.warn(text + " The model is damaged and will write nonsense.", stacklevel=3)
