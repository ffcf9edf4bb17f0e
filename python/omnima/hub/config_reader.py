"""Reads a config.json field by field; a feature that is not built here is refused by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima.errors import DataError

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
    reorder_and_upcast_attn omnima note max_length min_length do_sample
    early_stopping num_beams temperature top_k top_p typical_p repetition_penalty length_penalty
    classifier_dropout output_router_logits
    no_repeat_ngram_size num_return_sequences num_beam_groups diversity_penalty bad_words_ids
    encoder_no_repeat_ngram_size forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens tf_legacy_loss
    use_bfloat16 _sliding_window_pattern""".split()
)
# Features that change the logits, and the values under which they do not. Absent or null is off.
_INERT: dict[str, tuple[Any, ...]] = {
    "rope_scaling": (),
    "sliding_window": (),
    "blocksparse_block_size": (),
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
# As of DecoderConfig.rope_factor.
_MOST_TIMES = 1024


class ConfigReader:
    """Takes fields out of a config.json one by one; accounts for the rest at the end."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        path: Path,
        prefix: str = "",
        assumed: Mapping[str, Any] | None = None,
    ) -> None:
        """`prefix` stands before every name; `assumed` is what a family takes for absent fields,
        which null is not.
        """
        self.raw = {**(assumed or {}), **raw}
        self.path = path
        self._prefix = prefix
        self._taken: set[str] = set()

    def take(self, name: str, kind: type, default: Any = None, least: int = 1) -> Any:
        """The field's value, checked for its type; absent or null gives the default."""
        self._taken.add(name)
        name = self._prefix + name
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise DataError(f'{self.path}: the field "{name}" is missing.')
        if kind is float and type(value) is int and abs(value) < 1 << 64:
            value = float(value)
        wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f'{self.path}: "{name}" is {value!r}, but must be {_KINDS[kind]}.')
        if kind is int and isinstance(value, int) and not least <= value <= 1 << 24:
            raise DataError(
                f'{self.path}: "{name}" is {value}, but must lie between {least} and {1 << 24}.'
            )
        return value

    def factor(self, name: str) -> float:
        """How many times as long a context is to be."""
        value: float = self.take(name, float)
        if not 1 <= value <= _MOST_TIMES:
            raise DataError(
                f'{self.path}: "{self._prefix}{name}" is {value:g}, but must lie between 1 and '
                f"{_MOST_TIMES}: positions are stretched by it."
            )
        return value

    def account_for(self, name: str) -> None:
        """Say that a field was looked at elsewhere."""
        self._taken.add(name)

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
                if not inert:
                    raise self.refusal(name, value, "it must be absent or off")
            else:
                unknown.append(name)
        if unknown:
            warnings.warn(
                f"{self.path}: unknown fields {', '.join(sorted(unknown))}: no effect here. "
                "If one of them changes the model's results, these will differ.",
                stacklevel=5,
            )


_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "an object",
}
