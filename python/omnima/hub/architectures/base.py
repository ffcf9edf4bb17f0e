"""What an architecture of transformers is to us: the fields of its config.json, and how its files
name and lay out our parameters, both ways.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.hub.architectures import rotary_layout
from omnima.hub.architectures.layouts import SAME, Layout
from omnima.hub.gguf.form import GgufForm
from omnima.hub.names import Shapes, expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.hub.config_reader import ConfigReader

Config = Mapping[str, Any]
Tensors = Mapping[str, "Tensor"]

#: Our fields that every architecture has, and those that only training heeds.
COMMON = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings norm_eps rope_theta tie_word_embeddings
    initializer_range depth_scaled_init dropout embedding_dropout attention_dropout layer_drop
    prediction_heads""".split()
)
#: Our fields of how rotary frequencies stretch.
SCALING = frozenset(
    """rope_scaling rope_factor rope_original_context rope_beta_fast rope_beta_slow
    rope_attention_factor rope_low_freq_factor rope_high_freq_factor""".split()
)
_LAYERS = "model.layers."


@dataclasses.dataclass(frozen=True)
class Names:
    """How the files of an architecture name our parameters; what is not said is as with us.

    Modules are named without ``.weight`` and ``.bias``, those of a block from within the block.
    """

    #: Modules outside the blocks: ours, theirs.
    outer: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: What stands before the number of a block.
    layers: str = _LAYERS
    #: Modules of a block: ours to theirs.
    block: Callable[[str], str] = lambda module: module
    #: Modules of theirs that are several of ours as one.
    fused: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    #: How tensors of a module of theirs are laid out, where not as ours; by the parameter's kind,
    #: "weight" or "bias", where only one is.
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def fused_in(self) -> dict[str, str]:
        """The module of theirs that holds a module of ours among others."""
        return {ours: theirs for theirs, parts in self.fused.items() for ours in parts}


@dataclasses.dataclass(frozen=True)
class Part:
    """A tensor of theirs: its layout, and what it is made of with us."""

    ours: tuple[str, ...]
    layout: Layout


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

    def is_exactly(self, config: Config, defaults: Config) -> bool:
        """Whether a complete configuration is exactly this architecture."""
        for field, default in defaults.items():
            if field in self.fixed:
                if config[field] != self.fixed[field]:
                    return False
            elif field not in COMMON and field not in self.free and config[field] != default:
                return False
        return self.fits(config)

    def parts(self, config: Config) -> dict[str, Part]:
        """The tensors of its files by name."""
        found: dict[str, Part] = {}
        layouts = self.names.layouts
        for ours in expected_shapes(config):
            module, _, kind = ours.rpartition(".")
            place, theirs = self._module(module)
            layout = layouts.get(f"{theirs}.{kind}", layouts.get(theirs, SAME))
            name = f"{place}{theirs}.{kind}"
            if theirs in self.names.fused:
                at = module.removesuffix(self._inner(module))
                pieces = tuple(f"{at}{each}.{kind}" for each in self.names.fused[theirs])
                found.setdefault(name, Part(pieces, layout))
            else:
                found[name] = Part((ours,), layout)
        return found

    @staticmethod
    def _inner(module: str) -> str:
        """The name of a module of ours within its block."""
        return module.removeprefix(_LAYERS).partition(".")[2]

    def _module(self, module: str) -> tuple[str, str]:
        """The block of theirs that a module of ours is in, and their name for it there."""
        if not module.startswith(_LAYERS):
            return "", self.names.outer.get(module, module)
        number, _, inner = module.removeprefix(_LAYERS).partition(".")
        theirs = self.names.fused_in.get(inner) or self.names.block(inner)
        return f"{self.names.layers}{number}.", theirs

    def shapes(self, config: Config) -> Shapes:
        """Name and shape of every parameter as its files hold them."""
        ours = expected_shapes(config)
        return {
            name: part.layout.shape([ours[each] for each in part.ours])
            for name, part in self.parts(config).items()
        }

    def to_ours(self, tensors: Tensors, config: Config) -> dict[str, Tensor]:
        """Our parameters from the tensors of its files."""
        shapes = expected_shapes(config)
        found: dict[str, Tensor] = {}
        for name, part in self.parts(config).items():
            pieces = part.layout.part(tensors[name], [shapes[each] for each in part.ours], config)
            found.update(zip(part.ours, pieces, strict=True))
        return rotary_layout.to_ours(found, config)

    def from_ours(self, tensors: Tensors, config: Config) -> dict[str, Tensor]:
        """The tensors of its files from our parameters: the inverse of `to_ours`."""
        turned = rotary_layout.from_ours(tensors, config)
        return {
            name: part.layout.join([turned[each] for each in part.ours], config)
            for name, part in self.parts(config).items()
        }

    @property
    def ends(self) -> tuple[str, str]:
        """Its names of the embedding and of the head."""
        outer = self.names.outer
        return (
            outer.get("model.embed_tokens", "model.embed_tokens") + ".weight",
            outer.get("lm_head", "lm_head") + ".weight",
        )
