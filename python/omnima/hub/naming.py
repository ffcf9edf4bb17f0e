"""How a file names our parameters and lays them out: tables that work both ways."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from omnima.hub import rotary_layout
from omnima.hub.layouts import SAME, Layout
from omnima.hub.names import Shapes, expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]
Tensors = Mapping[str, "Tensor"]

_LAYERS = "model.layers."
QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")


@dataclasses.dataclass(frozen=True)
class Part:
    """A tensor of a file: its layout, and what it is made of with us."""

    ours: tuple[str, ...]
    layout: Layout


@dataclasses.dataclass(frozen=True)
class Names:
    """What a kind of files calls our parameters; what is not said is as with us.

    Modules are named without ``.weight`` and ``.bias``, those of a block from within the block.
    Several modules of ours may have one name: they lie there together, in their order with us, or
    in that of `fused`.
    """

    #: Modules outside the blocks: ours, theirs.
    outer: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: What stands before the number of a block.
    layers: str = _LAYERS
    #: Modules of a block: ours to theirs.
    block: Callable[[str], str] = lambda module: module
    #: Modules of theirs that are several of ours, in their order there.
    fused: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    #: How tensors of a module of theirs are laid out, where not as ours; by the parameter's kind,
    #: "weight" or "bias", where only one is.
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _fused_in(self) -> dict[str, str]:
        return {ours: theirs for theirs, parts in self.fused.items() for ours in parts}

    def parts(self, config: Config) -> Mapping[str, Part]:
        """The tensors of a file by name."""
        return self._parts_of(tuple(expected_shapes(config)))

    @functools.cached_property
    def _parts_of(self) -> Callable[[tuple[str, ...]], Mapping[str, Part]]:
        # A load asks three times for the same model.
        return functools.lru_cache(maxsize=4)(self._parts)

    def _parts(self, parameters: tuple[str, ...]) -> dict[str, Part]:
        found: dict[str, Part] = {}
        for ours in parameters:
            module, _, kind = ours.rpartition(".")
            place, inner, theirs = self._place(module)
            name = f"{place}{theirs}.{kind}"
            if theirs in self.fused:
                at = ours.removesuffix(f"{inner}.{kind}")
                together = tuple(f"{at}{each}.{kind}" for each in self.fused[theirs])
            else:
                together = (*(found[name].ours if name in found else ()), ours)
            layout = self.layouts.get(f"{theirs}.{kind}", self.layouts.get(theirs, SAME))
            found[name] = Part(together, layout)
        return found

    def _place(self, module: str) -> tuple[str, str, str]:
        """The block of theirs that a module of ours is in, and its names there: ours, theirs."""
        if not module.startswith(_LAYERS):
            return "", module, self.outer.get(module, module)
        number, _, inner = module.removeprefix(_LAYERS).partition(".")
        return f"{self.layers}{number}.", inner, self._fused_in.get(inner) or self.block(inner)

    def shapes(self, config: Config) -> Shapes:
        """Name and shape of every tensor of a file."""
        ours = expected_shapes(config)
        return {
            name: part.layout.shape([ours[each] for each in part.ours])
            for name, part in self.parts(config).items()
        }

    def to_ours(self, read: Callable[[str], Tensor], config: Config) -> dict[str, Tensor]:
        """Our parameters; `read` gives a tensor of the file by name."""
        every = self.pieces(lambda name, _: read(name), config)
        return {ours: tensor for _, _, found in every for ours, tensor in found.items()}

    def pieces(
        self, read: Callable[[str, bool], Tensor], config: Config, in_heads_order: bool = True
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """Each tensor of a file, its name and our parameters that it holds.

        `read` gives a tensor by name; where it is told True, rows may be bytes that stand for
        numbers, and then those of the parameters are, too. With `in_heads_order` False, the rows of
        queries and keys stay where they are within each head: see `head_order`.
        """
        shapes, places = expected_shapes(config), self.places(config)
        for name, part in self.parts(config).items():
            theirs = read(name, part.layout.moves_rows)
            stays = part.layout.within_heads and not in_heads_order
            layout = SAME if stays else part.layout
            pieces = layout.part(theirs, [shapes[each] for each in part.ours], config)
            found = dict(zip(part.ours, pieces, strict=True))
            yield name, theirs, rotary_layout.to_ours(found, places, in_heads_order)

    def places(self, config: Config) -> list[int]:
        """Where each of our numbers of a query's or a key's head stands, but for its layout."""
        return rotary_layout.places(config)

    def head_order(self, config: Config) -> list[int]:
        """Where in a file each number of a query's or a key's head lies; empty: where it is."""
        theirs = self._place(f"{_LAYERS}0.{QKV[0]}")[2]
        ours = self.layouts.get(theirs, SAME).order(config["head_dim"])
        order = [ours[place] for place in self.places(config)]
        return [] if order == sorted(order) else order

    def from_ours(self, tensors: Tensors, config: Config) -> dict[str, Tensor]:
        """The tensors of a file from our parameters: the inverse of `to_ours`."""
        laid = rotary_layout.from_ours(tensors, self.places(config))
        return {
            name: part.layout.join([laid[each] for each in part.ours], config)
            for name, part in self.parts(config).items()
        }

    @property
    def ends(self) -> tuple[str, str]:
        """The names of the embedding and of the head."""
        embedding, head = (self.outer.get(each, each) for each in ("model.embed_tokens", "lm_head"))
        return f"{embedding}.weight", f"{head}.weight"
