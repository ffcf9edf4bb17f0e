"""The fields of config.json, both ways: Llama's, GPT-2's and our own.

A feature that would change a model's results and is not built here is refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, DataError

# Every field of a decoder's configuration and its type.
DECODER_FIELDS: dict[str, type] = {
    "vocab_size": int,
    "hidden_size": int,
    "intermediate_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "head_dim": int,
    "max_position_embeddings": int,
    "norm": str,
    "norm_eps": float,
    "positions": str,
    "rope_theta": float,
    "activation": str,
    "attention_bias": bool,
    "mlp_bias": bool,
    "tie_word_embeddings": bool,
    "dropout": float,
    "initializer_range": float,
    "depth_scaled_init": bool,
}
SUPPORTED = ("LlamaForCausalLM", "GPT2LMHeadModel", "OmnimaForCausalLM")

_ROPE_HARMLESS = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
# Keys of config.json that name, describe or speed up, and never change the logits.
_HARMLESS = set(
    """architectures model_type transformers_version torch_dtype dtype _name_or_path name_or_path
    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id
    use_cache return_dict output_hidden_states output_attentions output_scores
    return_dict_in_generate pretraining_tp id2label label2id num_labels
    problem_type finetuning_task task_specific_params
    tokenizer_class prefix _commit_hash _attn_implementation attn_implementation torchscript
    gradient_checkpointing chunk_size_feed_forward is_decoder is_encoder_decoder n_ctx
    summary_type summary_use_proj summary_activation summary_first_dropout summary_proj_to_labels
    reorder_and_upcast_attn attention_dropout omnima note max_length min_length do_sample
    early_stopping num_beams temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size num_return_sequences num_beam_groups diversity_penalty bad_words_ids
    encoder_no_repeat_ngram_size forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens tf_legacy_loss
    use_bfloat16""".split()
)
# Features that change the logits, and the values under which they do not. Absent or null is off.
_INERT: dict[str, tuple[Any, ...]] = {
    "rope_scaling": (),
    "sliding_window": (),
    "quantization_config": (),
    "auto_map": ({},),
    "partial_rotary_factor": (1, 1.0),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logit_scale": (1, 1.0),
    "logits_scaling": (1, 1.0),
    "embedding_multiplier": (1, 1.0),
    "residual_multiplier": (1, 1.0),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "no_rope_layers": (),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "pruned_heads": ({},),
    "qkv_bias": (),
    "use_bias": (),
}


class ConfigReader:
    """Takes fields out of a config.json one by one; accounts for the rest at the end."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw = raw
        self.path = path
        self._taken: set[str] = set()

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """The field's value, checked for its type; absent or null gives the default."""
        self._taken.add(name)
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise DataError(f'{self.path}: the field "{name}" is missing.')
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise DataError(f'{self.path}: "{name}" is {value!r}, but must be {_KINDS[kind]}.')
        if kind is int and isinstance(value, int) and not 0 < value <= 1 << 24:
            raise DataError(
                f'{self.path}: "{name}" is {value}, but must lie between 1 and {1 << 24}.'
            )
        return value

    def choice(self, name: str, choices: Mapping[str, str], default: str) -> str:
        """The value's meaning here, or an error that lists what is supported."""
        value = self.take(name, str, default)
        if value not in choices:
            raise self.refusal(name, value, f"supported: {', '.join(choices)}")
        return choices[value]

    def refusal(self, name: str, value: object, advice: str) -> DataError:
        """The error for a feature whose neglect would change the model's results."""
        return DataError(
            f'{self.path}: "{name}" is {value!r}, which Omnima does not support ({advice}). '
            "Loading without it would give other results, so the model is refused."
        )

    def finish(self) -> None:
        """Refuse features that change results; name the fields that nobody knows."""
        unknown = []
        for name, value in self.raw.items():
            if name in self._taken or name in _HARMLESS:
                continue
            if name in _INERT:
                inert = value is None or any(
                    value == one and type(value) is type(one) for one in _INERT[name]
                )
                if not inert and not self._switched_off(name):
                    raise self.refusal(name, value, "it must be absent or off")
            elif name == "layer_types":
                plain = isinstance(value, list) and set(map(str, value)) <= {"full_attention"}
                if value is not None and not plain:
                    raise self.refusal(name, value, "every layer must be full_attention")
            elif name not in ("use_sliding_window", "max_window_layers"):
                unknown.append(name)
        if unknown:
            warnings.warn(
                f"{self.path}: unknown fields {', '.join(sorted(unknown))}: no effect here. "
                "If one of them changes the model's results, these will differ.",
                stacklevel=5,
            )

    def _switched_off(self, name: str) -> bool:
        return name == "sliding_window" and self.raw.get("use_sliding_window") is False


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def architecture(raw: Mapping[str, Any], path: Path) -> str:
    """Which of the supported architectures a config.json names."""
    named = raw.get("architectures")
    if not named:
        by_type = {"llama": SUPPORTED[0], "gpt2": SUPPORTED[1], "omnima": SUPPORTED[2]}
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
        "LlamaForCausalLM": _from_llama,
        "GPT2LMHeadModel": _from_gpt2,
        "OmnimaForCausalLM": _from_own,
    }
    config = readers[name](reader)
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
        "depth_scaled_init": inner.take("depth_scaled_init", bool, True),
    }


def _rope_theta(reader: ConfigReader) -> float:
    """From `rope_theta` (transformers 4) or `rope_parameters` (transformers 5)."""
    theta = float(reader.take("rope_theta", float, 10000.0))
    parameters = reader.take("rope_parameters", dict, {})
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    rest = set(parameters) - _ROPE_HARMLESS
    if kind != "default" or rest or parameters.get("partial_rotary_factor", 1) != 1:
        raise reader.refusal("rope_parameters", parameters, "only plain rotary positions")
    scaling = reader.raw.get("rope_scaling")
    if isinstance(scaling, dict) and set(scaling) <= _ROPE_HARMLESS:
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind == "default" and scaling.get("partial_rotary_factor", 1) == 1:
            reader.take("rope_scaling", dict)
            parameters = {**scaling, **parameters}
    if "rope_theta" not in parameters:
        return theta
    given = ConfigReader(parameters, reader.path).take("rope_theta", float)
    if reader.raw.get("rope_theta") is not None and given != theta:
        raise reader.refusal("rope_theta", theta, f"rope_parameters say {given}")
    return float(given)


def _from_llama(reader: ConfigReader) -> dict[str, Any]:
    extras = _own_extras(reader)
    if reader.raw.get("attention_dropout") and "omnima" not in reader.raw:
        warnings.warn(
            f"{reader.path}: attention_dropout acts in training only and is not taken over; "
            "set dropout when you train this model.",
            stacklevel=5,
        )
    hidden = reader.take("hidden_size", int)
    heads = reader.take("num_attention_heads", int)
    return {
        "vocab_size": reader.take("vocab_size", int),
        "hidden_size": hidden,
        "intermediate_size": reader.take("intermediate_size", int),
        "num_hidden_layers": reader.take("num_hidden_layers", int),
        "num_attention_heads": heads,
        "num_key_value_heads": reader.take("num_key_value_heads", int, heads),
        "head_dim": _head_dim(reader, hidden, heads),
        "max_position_embeddings": reader.take("max_position_embeddings", int, 2048),
        "norm": "rms_norm",
        "norm_eps": reader.take("rms_norm_eps", float, 1e-6),
        "positions": "rotary",
        "rope_theta": _rope_theta(reader),
        "activation": reader.choice("hidden_act", {"silu": "swiglu", "swish": "swiglu"}, "silu"),
        "attention_bias": reader.take("attention_bias", bool, False),
        "mlp_bias": reader.take("mlp_bias", bool, False),
        "tie_word_embeddings": reader.take("tie_word_embeddings", bool, False),
        "initializer_range": reader.take("initializer_range", float, 0.02),
        **extras,
    }


_GPT2_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _from_gpt2(reader: ConfigReader) -> dict[str, Any]:
    extras = _own_extras(reader)
    drops = [reader.take(name, float, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]
    if "omnima" not in reader.raw:
        extras["dropout"] = drops[0]
        if len(set(drops)) > 1:
            warnings.warn(
                f"{reader.path}: three different dropouts {drops}; Omnima has one and takes "
                f"resid_pdrop {drops[0]} (it acts in training only).",
                stacklevel=5,
            )
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
    return {name: reader.take(name, kind) for name, kind in DECODER_FIELDS.items()}


def architecture_of(config: Mapping[str, Any]) -> str:
    """The architecture that a decoder's configuration is exactly, or OmnimaForCausalLM.

    Raises
    ------
    ConfigError
        When a field is missing or unknown.
    """
    missing = [name for name in DECODER_FIELDS if name not in config]
    unknown = [name for name in config if name not in DECODER_FIELDS]
    if missing or unknown:
        raise ConfigError(
            f"A model's configuration has exactly the fields {', '.join(DECODER_FIELDS)}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    kind = (config["norm"], config["positions"], config["activation"])
    if kind == ("rms_norm", "rotary", "swiglu"):
        return "LlamaForCausalLM"
    plain_heads = (
        config["num_key_value_heads"] == config["num_attention_heads"]
        and config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]
    )
    if (
        kind in (("layer_norm", "learned", "gelu_tanh"), ("layer_norm", "learned", "gelu"))
        and config["attention_bias"]
        and config["mlp_bias"]
        and plain_heads
    ):
        return "GPT2LMHeadModel"
    return "OmnimaForCausalLM"


def write_config(
    config: Mapping[str, Any], name: str, special_ids: Mapping[str, int | None], dtype: str
) -> dict[str, Any]:
    """The contents of config.json for a decoder."""
    writers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "LlamaForCausalLM": _to_llama,
        "GPT2LMHeadModel": _to_gpt2,
        "OmnimaForCausalLM": _to_own,
    }
    model_types = dict(zip(SUPPORTED, ("llama", "gpt2", "omnima"), strict=True))
    return {
        "architectures": [name],
        "model_type": model_types[name],
        "torch_dtype": dtype,
        **writers[name](config),
        **special_ids,
    }


def _extras(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("dropout", "depth_scaled_init")}


def _to_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    same = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings attention_bias mlp_bias tie_word_embeddings
    initializer_range rope_theta""".split()
    return {
        **{key: config[key] for key in same},
        "hidden_act": "silu",
        "rms_norm_eps": config["norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "attention_dropout": 0.0,
        "omnima": _extras(config),
    }


def _to_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    functions = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
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
        "embd_pdrop": config["dropout"],
        "attn_pdrop": config["dropout"],
        "initializer_range": config["initializer_range"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "omnima": _extras(config),
    }


def _to_own(config: Mapping[str, Any]) -> dict[str, Any]:
    note = "No architecture of transformers is exactly this model: it loads in Omnima only."
    return {**{key: config[key] for key in DECODER_FIELDS}, "note": note}
