"""The keys of a GGUF file that say a decoder's shape, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub.config_reader import ConfigReader
from omnima.hub.gguf.form import GgufForm
from omnima.hub.options import field_defaults

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[str, str, Any]  # key, type, value
#: The tensor that holds what Llama 3's frequencies are divided by.
RAMP = "rope_freqs.weight"
_LEARNED = {"yarn": "yarn", "linear": "linear"}
_BETAS = {"yarn_beta_fast": "rope_beta_fast", "yarn_beta_slow": "rope_beta_slow"}


def write_shape(config: Mapping[str, Any], form: GgufForm) -> list[Pair]:
    """The keys of a configuration; ConfigError where the format has no word for it."""
    reason = form.objection(config) or _unsaid(config)
    if reason is not None:
        raise ConfigError(
            f"This model cannot be written as GGUF of the architecture {form.arch}: {reason}. "
            "llama.cpp would compute other results."
        )
    layer_norm = config["norm"] == "layer_norm"
    pairs: list[Pair] = [
        ("vocab_size", "u32", config["vocab_size"]),
        ("context_length", "u32", config["max_position_embeddings"]),
        ("embedding_length", "u32", config["hidden_size"]),
        ("block_count", "u32", config["num_hidden_layers"]),
        ("feed_forward_length", "u32", config["intermediate_size"]),
        ("attention.head_count", "u32", config["num_attention_heads"]),
        ("attention.head_count_kv", "u32", config["num_key_value_heads"]),
        ("attention.key_length", "u32", config["head_dim"]),
        ("attention.value_length", "u32", config["head_dim"]),
        (f"attention.layer_norm{'' if layer_norm else '_rms'}_epsilon", "f32", config["norm_eps"]),
    ]
    if config["positions"] == "rotary":
        pairs += _write_rotary(config)
    if config["num_experts"]:
        pairs += [
            ("expert_count", "u32", config["num_experts"]),
            ("expert_used_count", "u32", config["num_experts_per_tok"]),
        ]
        if form.expert_width:
            width = config["moe_intermediate_size"]
            pairs.append(("expert_feed_forward_length", "u32", width))
    for key in form.keys:
        if config[key.field] or key.type == "bool":
            pairs.append((key.name, key.type, config[key.field]))
    return [(f"{form.arch}.{name}", kind, value) for name, kind, value in pairs]


def _unsaid(config: Mapping[str, Any]) -> str | None:
    if config["rope_scaling"] == "dynamic":
        return "it has no word for dynamic rotary scaling"
    if config["num_experts"] and config["decoder_sparse_step"] != 1:
        return "it has experts in every layer, this model in every n-th"
    if config["num_experts"] and not config["norm_topk_prob"]:
        return "its weights of experts sum to 1, this model's do not"
    return None


def _write_rotary(config: Mapping[str, Any]) -> list[Pair]:
    turned = int(config["head_dim"] * config["partial_rotary_factor"])
    pairs: list[Pair] = [
        ("rope.dimension_count", "u32", turned),
        ("rope.freq_base", "f32", config["rope_theta"]),
    ]
    kind = config["rope_scaling"]
    if kind in _LEARNED:
        pairs += [
            ("rope.scaling.type", "str", _LEARNED[kind]),
            ("rope.scaling.factor", "f32", config["rope_factor"]),
            ("rope.scaling.original_context_length", "u32", config["rope_original_context"]),
        ]
    if kind == "yarn":
        pairs += [(f"rope.scaling.{name}", "f32", config[ours]) for name, ours in _BETAS.items()]
        if config["rope_attention_factor"] > 0:
            pairs.append(("rope.scaling.attn_factor", "f32", config["rope_attention_factor"]))
    return pairs


def read_shape(
    keys: ConfigReader, form: GgufForm, shapes: Mapping[str, tuple[int, ...]], ramp: Tensor | None
) -> dict[str, Any]:
    """A decoder's configuration from the keys and from which tensors there are.

    `ramp` is the tensor by which Llama 3's frequencies are divided, where the file has it.
    """
    config = {**field_defaults(), **form.constants}
    hidden, heads = keys.take("embedding_length", int), keys.take("attention.head_count", int)
    layer_norm = config["norm"] == "layer_norm"
    config.update(
        vocab_size=shapes.get("token_embd.weight", (0,))[0],
        hidden_size=hidden,
        num_hidden_layers=keys.take("block_count", int),
        intermediate_size=keys.take("feed_forward_length", int),
        num_attention_heads=heads,
        num_key_value_heads=keys.take("attention.head_count_kv", int, heads),
        head_dim=keys.take("attention.key_length", int, hidden // heads),
        max_position_embeddings=keys.take("context_length", int),
        norm_eps=_short(keys.take(_epsilon(layer_norm), float)),
        tie_word_embeddings="output.weight" not in shapes,
        attention_bias=_any(shapes, "attn_q.bias", "attn_qkv.bias"),
        mlp_bias=_any(shapes, "ffn_up.bias"),
    )
    if config["attention_bias"]:
        config["attention_output_bias"] = _any(shapes, "attn_output.bias")
    if config["positions"] == "rotary":
        config.update(_read_rotary(keys, config, ramp))
    if keys.take("expert_count", int, 0, least=0):
        config.update(_read_experts(keys, config, form))
    for key in form.keys:
        kind = {"bool": bool, "f32": float}.get(key.type, int)
        config[key.field] = keys.take(key.name, kind, config[key.field], least=0)
    if config["sliding_window"] >= config["max_position_embeddings"] and not config.get(
        "rope_local_theta"
    ):
        config.update(sliding_window=0, sliding_window_pattern=0)
    return {**config, **form.derived(config)}


def _epsilon(layer_norm: bool) -> str:
    return f"attention.layer_norm{'' if layer_norm else '_rms'}_epsilon"


def _any(shapes: Mapping[str, tuple[int, ...]], *names: str) -> bool:
    return any(f"blk.0.{name}" in shapes for name in names)


def _short(number: float) -> float:
    """The shortest decimal that is the same float32: files hold 1e-5 as 0.00000999999974…

    >>> _short(9.999999747378752e-06)
    1e-05
    """
    import numpy as np

    return float(str(np.float32(number)))


def _read_rotary(
    keys: ConfigReader, config: Mapping[str, Any], ramp: Tensor | None
) -> dict[str, Any]:
    width = config["head_dim"]
    turned = keys.take("rope.dimension_count", int, width)
    if not 2 <= turned <= width:
        raise DataError(f"{keys.path}: {turned} numbers of a head of {width} are to be turned.")
    fields: dict[str, Any] = {
        "rope_theta": _short(keys.take("rope.freq_base", float, 10000.0)),
        "partial_rotary_factor": turned / width,
    }
    kind = keys.take("rope.scaling.type", str, "none")
    if ramp is not None:
        return {**fields, **_of_ramp(keys, ramp, fields["rope_theta"], turned)}
    if kind == "none":
        return fields
    if kind not in _LEARNED:
        raise DataError(
            f"{keys.path}: rotary scaling of type {kind!r} is not supported; Omnima reads "
            f"{', '.join(_LEARNED)} and Llama 3's."
        )
    factor = _short(keys.factor("rope.scaling.factor"))
    context = config["max_position_embeddings"]
    fields |= {
        "rope_scaling": kind,
        "rope_factor": factor,
        "rope_original_context": keys.take(
            "rope.scaling.original_context_length", int, max(1, round(context / factor))
        ),
    }
    if kind == "yarn":
        for name, ours in _BETAS.items():
            fields[ours] = _short(keys.take(f"rope.scaling.{name}", float, config[ours]))
        given = keys.take("rope.scaling.attn_factor", float, 0.0)
        fields["rope_attention_factor"] = _short(given)
    return fields


def ramp_of(config: Mapping[str, Any]) -> Tensor:
    """What llama.cpp divides Llama 3's frequencies by: float32 [turned / 2]."""
    import torch

    half = int(config["head_dim"] * config["partial_rotary_factor"]) // 2
    plain = config["rope_theta"] ** -(torch.arange(half, dtype=torch.float64) / half)
    turns = config["rope_original_context"] * plain / (2 * torch.pi)
    low, high = config["rope_low_freq_factor"], config["rope_high_freq_factor"]
    share = ((turns - low) / (high - low)).clamp(0, 1)
    ramp: Tensor = (1 / ((1 - share) / config["rope_factor"] + share)).float()
    return ramp


def _of_ramp(keys: ConfigReader, ramp: Tensor, theta: float, turned: int) -> dict[str, Any]:
    """Llama 3's scaling, whose parameters a file does not hold but what they come to."""
    import torch

    if ramp.shape != (turned // 2,):
        raise DataError(
            f"{keys.path}: {RAMP} has the shape {tuple(ramp.shape)}, but "
            f"{turned} numbers of a head turn."
        )
    for original in (8192, 4096, 2048, 16384, 32768, 65536, 131072):
        fields = {
            "rope_scaling": "llama3",
            "rope_factor": _short(float(ramp.max())),
            "rope_original_context": original,
            "rope_low_freq_factor": 1.0,
            "rope_high_freq_factor": 4.0,
        }
        # The share of a head that turns does not matter to the ramp over what turns.
        given = {**fields, "rope_theta": theta, "head_dim": turned, "partial_rotary_factor": 1.0}
        if torch.allclose(ramp_of(given), ramp, rtol=1e-5):
            return fields
    raise DataError(
        f"{keys.path}: the frequencies of rope_freqs.weight are not those of Llama 3's scaling "
        "with the factors 1 and 4, which Omnima does not support."
    )


def _read_experts(keys: ConfigReader, config: Mapping[str, Any], form: GgufForm) -> dict[str, Any]:
    inner = config["intermediate_size"]
    return {
        "num_experts": keys.take("expert_count", int),
        "num_experts_per_tok": keys.take("expert_used_count", int),
        "moe_intermediate_size": keys.take("expert_feed_forward_length", int)
        if form.expert_width
        else inner,
        "router_z_loss_coef": 0.0,
    }
