"""How GGUF says an architecture: the keys of its metadata and the names of its tensors.

Facts about the format are llama.cpp's (docs/gguf.md of ggml, and what its converters write).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from omnima.hub.layouts import Interleaved, Stacked
from omnima.hub.naming import Names

Config = Mapping[str, Any]

_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.embed_positions": "position_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "attention_output_layernorm": "post_attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp_output_layernorm": "post_ffw_norm",
    "mlp.gate": "ffn_gate_inp",
}
_EXPERT = re.compile(r"mlp\.experts\.\d+\.(gate|up|down)_proj")
_STACKED = {f"ffn_{part}_exps": Stacked() for part in ("gate", "up", "down")}


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the metadata that holds a field of ours as it is; absent stands for off."""

    name: str  # behind the name of the architecture
    type: str
    field: str


WINDOW = Key("attention.sliding_window", "u32", "sliding_window")
CAPS = (
    Key("attn_logit_softcapping", "f32", "attention_softcap"),
    Key("final_logit_softcapping", "f32", "logit_softcap"),
)


@dataclasses.dataclass(frozen=True)
class GgufForm:
    """One architecture of GGUF."""

    #: Its name there.
    arch: str
    #: What it means by being it: values of our fields.
    constants: Mapping[str, Any]
    #: Whether pairs that turn together are neighbours: (0, 1), (2, 3), …
    interleaved: bool = False
    #: Names of tensors that hold several of ours one below the other.
    fused: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    #: Keys beyond those that all have.
    keys: tuple[Key, ...] = ()
    #: Whether experts' inner width has a key of its own.
    expert_width: bool = False
    #: Why llama.cpp would compute other results than ours; None: it does not.
    objection: Callable[[Config], str | None] = lambda config: None
    #: Fields that follow from others, when a file is read.
    derived: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: {}

    @functools.cached_property
    def names(self) -> Names:
        """How its files name our parameters."""
        turned = {"attn_q": Interleaved(), "attn_k": Interleaved()} if self.interleaved else {}
        return Names(
            outer=_OUTER,
            layers="blk.",
            block=_name_in_block,
            fused=self.fused,
            layouts={**_STACKED, **turned},
        )


@functools.cache
def _name_in_block(module: str) -> str:
    """The name of a module of a block.

    >>> _name_in_block("self_attn.q_proj"), _name_in_block("mlp.experts.3.up_proj")
    ('attn_q', 'ffn_up_exps')
    """
    expert = _EXPERT.fullmatch(module)
    return f"ffn_{expert[1]}_exps" if expert else _BLOCK[module]


def scales_embeddings(config: dict[str, Any]) -> dict[str, Any]:
    """Gemma's: by the root of their width."""
    return {"embedding_multiplier": math.sqrt(config["hidden_size"])}


def plain_scale(config: Config) -> str | None:
    """Objects to a scale of scores, for which there is no key."""
    scaled = config["attention_scale"] not in (0, config["head_dim"] ** -0.5)
    return "attention_scale is not 1 / sqrt(head_dim)" if scaled else None


def windows_every(pattern: int) -> Callable[[Config], str | None]:
    """Objects to windows on other layers than all but every n-th."""

    def objection(config: Config) -> str | None:
        if not config["sliding_window"] or config["sliding_window_pattern"] == pattern:
            return plain_scale(config)
        return f"its windows are on all but every {pattern}-th layer, this model's are not"

    return objection
