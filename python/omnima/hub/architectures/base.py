"""What an architecture of transformers is to us: the fields of its config.json, and how its files
name and lay out our parameters, both ways.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.hub.gguf.form import GgufForm
from omnima.hub.naming import Names

if TYPE_CHECKING:
    from omnima.hub.config_reader import ConfigReader

Config = Mapping[str, Any]

#: Our fields that every architecture has, and those that only training heeds.
COMMON = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings norm_eps rope_theta tie_word_embeddings
    initializer_range depth_scaled_init dropout embedding_dropout attention_dropout layer_drop
    prediction_heads reward_head""".split()
)
#: Our fields of how rotary frequencies stretch.
SCALING = frozenset(
    """rope_scaling rope_factor rope_original_context rope_beta_fast rope_beta_slow
    rope_attention_factor rope_low_freq_factor rope_high_freq_factor""".split()
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A decoder of transformers.

    A model of ours is exactly this architecture when its fields in `fixed` have these values, those
    that are neither there nor in `free` are as they are by default, and `fits` agrees.
    """

    name: str  # "LlamaForCausalLM"
    model_type: str
    read: Callable[[ConfigReader], dict[str, Any]]
    write: Callable[[Config], dict[str, Any]]
    fixed: Mapping[str, Any]
    free: frozenset[str] = frozenset()
    fits: Callable[[Config], bool] = lambda config: True
    names: Names = Names()
    gguf: GgufForm | None = None  # None: it cannot be said there
    #: What absent fields of a file stand for; null is off.
    assumed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def is_exactly(self, config: Config, defaults: Config) -> bool:
        """Whether a complete configuration is exactly this architecture."""
        for field, default in defaults.items():
            if field in self.fixed:
                if config[field] != self.fixed[field]:
                    return False
            elif field not in COMMON and field not in self.free and config[field] != default:
                return False
        return self.fits(config)
