"""The fields of config.json, both ways, by the architecture that it names or that a model is.

A feature that would change a model's results and is not built here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, DataError
from omnima.hub.architectures import BY_NAME, REGISTRY, Architecture
from omnima.hub.architectures.own import ALWAYS
from omnima.hub.config_reader import ConfigReader
from omnima.hub.options import field_defaults

SUPPORTED = tuple(BY_NAME)
_REWARD = "ForSequenceClassification"


def reward_name(name: str) -> str:
    """Return what transformers calls an architecture with a reward head.

    >>> reward_name("LlamaForCausalLM"), reward_name("GPT2LMHeadModel")
    ('LlamaForSequenceClassification', 'GPT2ForSequenceClassification')
    """
    return name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + _REWARD


_REWARDING = {reward_name(name): each for name, each in BY_NAME.items()}


def architecture(raw: Mapping[str, Any], path: Path) -> Architecture:
    """Which of the supported architectures a config.json names."""
    named = raw.get("architectures")
    if not named:
        by_type = {each.model_type: each.name for each in REGISTRY}
        model_type = raw.get("model_type")
        named = [by_type.get(model_type, model_type) if isinstance(model_type, str) else model_type]
    one = named[0] if isinstance(named, list) and len(named) == 1 else None
    if isinstance(one, str) and one in _REWARDING:
        return _REWARDING[one]
    if not isinstance(one, str) or one not in SUPPORTED:
        raise DataError(
            f"{path}: the architecture {named!r} is not supported. Omnima loads "
            f"{', '.join(SUPPORTED)}."
        )
    return BY_NAME[one]


def read_config(raw: Mapping[str, Any], path: Path) -> tuple[Architecture, dict[str, Any]]:
    """Architecture and decoder configuration of a config.json."""
    found = architecture(raw, path)
    reader = ConfigReader(raw, path, assumed=found.assumed)
    config = {**field_defaults(), **found.read(reader), "reward_head": _rewards(raw, path)}
    reader.finish()
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % shared:
        raise DataError(
            f"{path}: {heads} attention heads cannot share {shared} key-value heads "
            "in equal groups."
        )
    return found, config


def _rewards(raw: Mapping[str, Any], path: Path) -> bool:
    """Whether a config.json is that of a reward model: it tells one label, which is its reward."""
    if (raw.get("architectures") or [None])[0] not in _REWARDING:
        return False
    labels = raw.get("id2label")
    count = len(labels) if isinstance(labels, (dict, list)) else raw.get("num_labels", 2)
    if count != 1:
        raise DataError(
            f"{path}: a classifier of {count} labels is not supported. Omnima loads reward models, "
            "which have one (num_labels 1)."
        )
    return True


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a decoder's configuration is exactly, or OmnimaForCausalLM.

    Raises
    ------
    ConfigError
        When a field is missing or unknown.
    """
    defaults = field_defaults()
    missing = [name for name in ALWAYS if name not in config]
    unknown = [name for name in config if name not in defaults]
    if missing or unknown:
        raise ConfigError(
            f"A model's configuration has the fields {', '.join(defaults)}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}."
        )
    config = {**defaults, **config}
    return next(each for each in REGISTRY if each.is_exactly(config, defaults))


def write_config(
    config: Mapping[str, Any],
    written: Architecture,
    special_ids: Mapping[str, int | None],
    dtype: str,
) -> dict[str, Any]:
    """The contents of config.json for a decoder."""
    rewards = bool(config.get("reward_head"))
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}} if rewards else {}
    return {
        "architectures": [reward_name(written.name) if rewards else written.name],
        "model_type": written.model_type,
        "torch_dtype": dtype,
        **written.write({**field_defaults(), **config}),
        **labels,
        **special_ids,
    }
