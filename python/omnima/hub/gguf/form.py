"""How GGUF says an architecture: the keys of its metadata and the names of its tensors.

Facts about the format are llama.cpp's (docs/gguf.md of ggml, and what its converters write).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

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
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj")
QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")


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


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a parameter of ours lies: the tensor, and which of the parts stacked in it."""

    tensor: str
    expert: int | None = None


def place_of(name: str, form: GgufForm) -> Place:
    """The tensor of GGUF that holds a parameter of ours.

    >>> from omnima.hub.architectures.llama import LLAMA
    >>> place_of("model.layers.3.self_attn.q_proj.weight", LLAMA.gguf).tensor
    'blk.3.attn_q.weight'
    """
    module, _, kind = name.rpartition(".")
    block = _LAYER.fullmatch(module)
    if block is None:
        return Place(f"{_OUTER[module]}.{kind}")
    number, inner = block[1], block[2]
    expert = _EXPERT.fullmatch(inner)
    if expert is not None:
        return Place(f"blk.{number}.ffn_{expert[2]}_exps.{kind}", int(expert[1]))
    fused = {ours: theirs for theirs, parts in form.fused.items() for ours in parts}
    return Place(f"blk.{number}.{fused.get(inner) or _BLOCK[inner]}.{kind}")


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
