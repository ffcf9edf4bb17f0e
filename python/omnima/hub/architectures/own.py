"""A decoder that no architecture of transformers is exactly: our own fields, by our names."""

from __future__ import annotations

from typing import Any

from omnima.hub.architectures.base import Architecture, Config
from omnima.hub.config_reader import ConfigReader
from omnima.hub.naming import Names
from omnima.hub.options import field_defaults

# The fields that every file of ours has; those that came later are off where they are absent.
ALWAYS = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings norm norm_eps positions rope_theta
    activation attention_bias mlp_bias tie_word_embeddings dropout initializer_range
    depth_scaled_init""".split()
_NOTE = "No architecture of transformers is exactly this model: it loads in Omnima only."


def read(reader: ConfigReader) -> dict[str, Any]:
    """Our fields from the architecture's config.json."""
    required = {name: reader.take(name, type(field_defaults()[name])) for name in ALWAYS}
    options = {
        name: reader.take(name, type(default), default, least=0)
        for name, default in field_defaults().items()
        if name not in ALWAYS
    }
    return {**required, **options}


def write(config: Config) -> dict[str, Any]:
    """The architecture's fields for config.json."""
    return {**config, "note": _NOTE}


class _AsTheyAre(Names):
    """Names and layout are ours, that of rotary positions too."""

    def places(self, config: Config) -> list[int]:
        return list(range(config["head_dim"]))


class _Any(Architecture):
    """What every model is, when it is nothing else."""

    def is_exactly(self, config: Config, defaults: Config) -> bool:
        return True


OWN = _Any(
    name="OmnimaForCausalLM",
    model_type="omnima",
    read=read,
    write=write,
    fixed={},
    names=_AsTheyAre(),
)
