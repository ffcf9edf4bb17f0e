"""The fields of config.json, both ways: Llama's and its kin's, GPT-2's and our own.

A feature that would change a model's results and is not built here is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, DataError
from omnima.hub import moe
from omnima.hub.config_reader import ConfigReader
from omnima.hub.neox import from_neox, is_neox, to_neox
from omnima.hub.options import (
    field_defaults,
    layer_types,
    read_rotary,
    read_windows,
    write_rotary,
)

# The fields that every file of ours has; those that came later are off where they are absent.
_ALWAYS = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings norm norm_eps positions rope_theta
    activation attention_bias mlp_bias tie_word_embeddings dropout initializer_range
    depth_scaled_init""".split()
# Architectures and their `model_type`.
_MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "gpt_neox",
    "OmnimaForCausalLM": "omnima",
}
SUPPORTED = tuple(_MODEL_TYPES)


def architecture(raw: Mapping[str, Any], path: Path) -> str:
    """Which of the supported architectures a config.json names."""
    named = raw.get("architectures")
    if not named:
        by_type = {kind: name for name, kind in _MODEL_TYPES.items()}
        model_type = raw.get("model_type")
        named = [by_type.get(model_type, model_type) if isinstance(model_type, str) else model_type]
    if not isinstance(named, list) or len(named) != 1 or named[0] not in SUPPORTED:
        raise DataError(
            f"{path}: the architecture {named!r} is not supported. Omnima loads "
            f"{', '.join(SUPPORTED)}."
        )
    return str(named[0])


def read_config(raw: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and decoder configuration of a config.json."""
    name = architecture(raw, path)
    reader = ConfigReader(raw, path)
    readers: dict[str, Callable[[ConfigReader], dict[str, Any]]] = {
        "LlamaForCausalLM": _from_plain_llama,
        "MistralForCausalLM": _from_mistral,
        "MixtralForCausalLM": lambda reader: moe.from_mixtral(reader, _from_llama(reader)),
        "Qwen3ForCausalLM": _from_qwen3,
        "Qwen3MoeForCausalLM": lambda reader: moe.from_qwen3_moe(reader, _from_qwen3(reader)),
        "GPT2LMHeadModel": _from_gpt2,
        "GPTNeoXForCausalLM": lambda reader: from_neox(reader, _own_extras(reader)),
        "OmnimaForCausalLM": _from_own,
    }
    config = {**field_defaults(), **readers[name](reader)}
    reader.finish()
    _check_heads(config, path)
    return name, config


def _check_heads(config: Mapping[str, Any], path: Path) -> None:
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % shared:
        raise DataError(
            f"{path}: {heads} attention heads cannot share {shared} key-value heads "
            "in equal groups."
        )


def _head_dim(reader: ConfigReader, hidden: int, heads: int) -> int:
    if hidden % heads and reader.raw.get("head_dim") is None:
        raise DataError(
            f"{reader.path}: the hidden size {hidden} is not a multiple of {heads} attention heads."
        )
    return int(reader.take("head_dim", int, hidden // heads))


def _own_extras(reader: ConfigReader) -> dict[str, Any]:
    """Fields that only training needs; kept under "omnima" in files that we wrote."""
    extras = reader.raw.get("omnima")
    inner = ConfigReader(extras if isinstance(extras, dict) else {}, reader.path)
    return {
        "dropout": inner.take("dropout", float, 0.0),
        "embedding_dropout": inner.take("embedding_dropout", float, -1.0),
        "layer_drop": inner.take("layer_drop", float, 0.0),
        "depth_scaled_init": inner.take("depth_scaled_init", bool, True),
    }


def _from_llama(reader: ConfigReader, window: int = 0) -> dict[str, Any]:
    """Llama's fields, which Mistral and Qwen3 share; `window` is the family's own default."""
    extras = _own_extras(reader)
    hidden = reader.take("hidden_size", int)
    heads = reader.take("num_attention_heads", int)
    layers = reader.take("num_hidden_layers", int)
    rotary = read_rotary(reader, reader.take("max_position_embeddings", int, 2048))
    return {
        "vocab_size": reader.take("vocab_size", int),
        "hidden_size": hidden,
        "intermediate_size": reader.take("intermediate_size", int),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": reader.take("num_key_value_heads", int, heads),
        "head_dim": _head_dim(reader, hidden, heads),
        "norm": "rms_norm",
        "norm_eps": reader.take("rms_norm_eps", float, 1e-6),
        "positions": "rotary",
        **rotary,
        **read_windows(reader, layers, rotary["max_position_embeddings"], window),
        "activation": reader.choice("hidden_act", {"silu": "swiglu", "swish": "swiglu"}, "silu"),
        "attention_bias": reader.take("attention_bias", bool, False),
        "mlp_bias": reader.take("mlp_bias", bool, False),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, False),
        "attention_dropout": reader.take("attention_dropout", float, 0.0),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        **extras,
    }


def _from_plain_llama(reader: ConfigReader) -> dict[str, Any]:
    config = _from_llama(reader)
    if config["sliding_window"]:
        window = reader.raw["sliding_window"]
        raise reader.refusal("sliding_window", window, "Llama has none; is this Mistral?")
    return config


def _from_mistral(reader: ConfigReader) -> dict[str, Any]:
    return _from_llama(reader, window=4096)


def _from_qwen3(reader: ConfigReader) -> dict[str, Any]:
    config = _from_llama(reader)
    if config["mlp_bias"]:
        raise reader.refusal("mlp_bias", True, "Qwen3 has none")
    return {**config, "qk_norm": True}


_GPT2_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _from_gpt2(reader: ConfigReader) -> dict[str, Any]:
    extras = _own_extras(reader)
    residual, embedding, attention = (
        reader.take(name, float, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    )
    extras["dropout"], extras["attention_dropout"] = residual, attention
    extras["embedding_dropout"] = -1.0 if embedding == residual else embedding
    hidden, heads = reader.take("n_embd", int, 768), reader.take("n_head", int, 12)
    if hidden % heads:
        raise DataError(f"{reader.path}: n_embd {hidden} is not a multiple of n_head {heads}.")
    return {
        "vocab_size": reader.take("vocab_size", int, 50257),
        "hidden_size": hidden,
        "intermediate_size": reader.take("n_inner", int, 4 * hidden),
        "num_hidden_layers": reader.take("n_layer", int, 12),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": reader.take("n_positions", int, 1024),
        "norm": "layer_norm",
        "norm_eps": reader.take("layer_norm_epsilon", float, 1e-5),
        "positions": "learned",
        "rope_theta": 10000.0,
        "activation": reader.choice("activation_function", _GPT2_ACTIVATIONS, "gelu_new"),
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, True),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        **extras,
    }


def _from_own(reader: ConfigReader) -> dict[str, Any]:
    required = {name: reader.take(name, type(field_defaults()[name])) for name in _ALWAYS}
    options = {
        name: reader.take(name, type(default), default, least=0)
        for name, default in field_defaults().items()
        if name not in _ALWAYS
    }
    return {**required, **options}


def architecture_of(config: Mapping[str, Any]) -> str:
    """The architecture that a decoder's configuration is exactly, or OmnimaForCausalLM.

    Raises
    ------
    ConfigError
        When a field is missing or unknown.
    """
    defaults = field_defaults()
    missing = [name for name in _ALWAYS if name not in config]
    unknown = [name for name in config if name not in defaults]
    if missing or unknown:
        raise ConfigError(
            f"A model's configuration has the fields {', '.join(defaults)}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    config = {**defaults, **config}
    alone = ("attention_softcap", "logit_softcap", "blocksparse_block_size")
    if any(config[name] for name in alone) or not config["causal"]:
        return "OmnimaForCausalLM"
    if is_neox(config):
        return "GPTNeoXForCausalLM"
    if config["parallel_residual"]:
        return "OmnimaForCausalLM"
    kind = (config["norm"], config["positions"], config["activation"])
    if kind == ("rms_norm", "rotary", "swiglu"):
        return _of_llamas(config)
    plain_heads = (
        config["num_key_value_heads"] == config["num_attention_heads"]
        and config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
    )
    if (
        kind in (("layer_norm", "learned", "gelu_tanh"), ("layer_norm", "learned", "gelu"))
        and config["attention_bias"]
        and config["mlp_bias"]
        and plain_heads
        and not (config["qk_norm"] or config["sliding_window"] or config["num_experts"])
    ):
        return "GPT2LMHeadModel"
    return "OmnimaForCausalLM"


def _of_llamas(config: Mapping[str, Any]) -> str:
    """Llama or one of those that add a single thing to it."""
    if config["num_experts"]:
        if config["mlp_bias"]:
            return "OmnimaForCausalLM"
        kinds = {"MixtralForCausalLM": moe.is_mixtral, "Qwen3MoeForCausalLM": moe.is_qwen3_moe}
        return next((name for name, fits in kinds.items() if fits(config)), "OmnimaForCausalLM")
    if config["qk_norm"]:
        return "OmnimaForCausalLM" if config["mlp_bias"] else "Qwen3ForCausalLM"
    if not config["sliding_window"]:
        return "LlamaForCausalLM"
    plain = not (config["attention_bias"] or config["mlp_bias"] or config["sliding_window_pattern"])
    return "MistralForCausalLM" if plain else "OmnimaForCausalLM"


def write_config(
    config: Mapping[str, Any], name: str, special_ids: Mapping[str, int | None], dtype: str
) -> dict[str, Any]:
    """The contents of config.json for a decoder."""
    config = {**field_defaults(), **config}
    writers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "LlamaForCausalLM": _to_llama,
        "MistralForCausalLM": _to_mistral,
        "MixtralForCausalLM": lambda config: moe.to_mixtral(config, _to_mistral(config)),
        "Qwen3ForCausalLM": _to_qwen3,
        "Qwen3MoeForCausalLM": lambda config: moe.to_qwen3_moe(config, _to_qwen3(config)),
        "GPT2LMHeadModel": _to_gpt2,
        "GPTNeoXForCausalLM": _to_neox,
        "OmnimaForCausalLM": _to_own,
    }
    return {
        "architectures": [name],
        "model_type": _MODEL_TYPES[name],
        "torch_dtype": dtype,
        **writers[name](config),
        **special_ids,
    }


def _extras(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("dropout", "embedding_dropout", "layer_drop", "depth_scaled_init")
    return {key: config[key] for key in names}


def _to_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    same = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim attention_bias mlp_bias tie_word_embeddings initializer_range
    attention_dropout""".split()
    rotary = write_rotary(config)
    return {
        **{key: config[key] for key in same},
        "hidden_act": "silu",
        "rms_norm_eps": config["norm_eps"],
        **rotary,
        "omnima": {**_extras(config), **rotary["omnima"]},
    }


def _to_mistral(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = _to_llama(config)
    del fields["attention_bias"], fields["mlp_bias"]
    return {**fields, "sliding_window": config["sliding_window"]}


def _to_qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = _to_llama(config)
    del fields["mlp_bias"]
    slides = config["sliding_window"] > 0
    return {
        **fields,
        "use_sliding_window": slides,
        "sliding_window": config["sliding_window"] if slides else None,
        "max_window_layers": 0,
        "layer_types": layer_types(config),
    }


def _to_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    functions = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
    embedding = config["embedding_dropout"]
    return {
        "vocab_size": config["vocab_size"],
        "n_embd": config["hidden_size"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_head": config["num_attention_heads"],
        "n_positions": config["max_position_embeddings"],
        "layer_norm_epsilon": config["norm_eps"],
        "activation_function": functions[config["activation"]],
        "resid_pdrop": config["dropout"],
        "embd_pdrop": config["dropout"] if embedding < 0 else embedding,
        "attn_pdrop": config["attention_dropout"],
        "initializer_range": config["initializer_range"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "omnima": _extras(config),
    }


def _to_neox(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = to_neox(config)
    return {**fields, "omnima": {**_extras(config), **fields["omnima"]}}


def _to_own(config: Mapping[str, Any]) -> dict[str, Any]:
    note = "No architecture of transformers is exactly this model: it loads in Omnima only."
    return {**config, "note": note}
