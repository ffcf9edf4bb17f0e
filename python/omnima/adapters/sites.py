"""Where adapters can stand: the linear layers of a model's blocks, as its files call them."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.hub import rotary_layout
from omnima.hub.fields import architecture_of
from omnima.hub.layouts import SAME, Layout, Transposed
from omnima.hub.names import expected_shapes
from omnima.hub.options import field_defaults

if TYPE_CHECKING:
    from torch import Tensor

    from omnima.hub.naming import Names

Config = Mapping[str, Any]
ALL_LINEAR = "all-linear"
_LINEAR = re.compile(r"model\.layers\.\d+\..*\.(q|k|v|o|gate|up|down)_proj")


@dataclasses.dataclass(frozen=True)
class Module:
    """A linear layer of a model's files.

    Attributes
    ----------
    name
        What the files call it, such as ``model.layers.0.self_attn.q_proj``.
    parts
        Our modules that it is, in its own order.
    layout
        How its rows lie beside ours.
    sizes
        Outputs of each part.
    inputs
        Numbers that it reads.
    transposed
        Whether the files have its weight as [inputs, outputs].
    """

    name: str
    parts: tuple[str, ...]
    layout: Layout
    sizes: tuple[int, ...]
    inputs: int
    transposed: bool = False

    @property
    def ends_feedforward(self) -> bool:
        """Whether it reads what the feed-forward part has in its middle."""
        return all(part.endswith(".down_proj") for part in self.parts)

    @property
    def ends_part(self) -> bool:
        """Whether its outputs are what attention or the feed-forward part gives."""
        return len(self.parts) == 1 and self.parts[0].endswith((".o_proj", ".down_proj"))

    @property
    def ordered(self) -> list[str]:
        """Our modules in our order: those of a fused layer lie so one behind the other."""
        return sorted(self.parts, key=_place)

    def order(self, config: Config) -> list[int]:
        """Where the files have each of our outputs; empty: where it lies here."""
        import torch

        places = torch.arange(float(sum(self.sizes)))
        found: list[int] = self.rows_to_ours(places, config).long().tolist()
        return [] if found == list(range(len(found))) else found

    def rows_to_ours(self, theirs: Tensor, config: Config) -> Tensor:
        """What belongs to the outputs, [outputs, ...], in our order from that of the files."""
        import torch

        shapes = [(size, *theirs.shape[1:]) for size in self.sizes]
        pieces = self.layout.part(theirs, shapes, config)
        named = {f"{part}.weight": each for part, each in zip(self.parts, pieces, strict=True)}
        found = rotary_layout.to_ours(named, rotary_layout.places(config))
        return torch.cat([found[f"{part}.weight"] for part in self.ordered])

    def rows_to_theirs(self, ours: Tensor, config: Config) -> Tensor:
        """The inverse of `rows_to_ours`."""
        import torch

        by_part = dict(zip(self.parts, self.sizes, strict=True))
        pieces = torch.split(ours, [by_part[part] for part in self.ordered])
        named = {f"{part}.weight": each for part, each in zip(self.ordered, pieces, strict=True)}
        laid = rotary_layout.from_ours(named, rotary_layout.places(config))
        return self.layout.join([laid[f"{part}.weight"] for part in self.parts], config)


_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _place(part: str) -> int:
    return _ORDER.index(part.rpartition(".")[2])


def linear_modules(config: Config, names: Names | None = None) -> dict[str, Module]:
    """The linear layers of a model's blocks, by the names that its files have.

    Parameters
    ----------
    config
        The fields of the model's configuration.
    names
        How its files call our parameters; left out: as those of the first architecture that the
        model is exactly.

    Examples
    --------
    >>> from omnima.config import model_preset
    >>> list(linear_modules(model_preset("nima", vocab_size=64).to_dict()))[0]
    'model.layers.0.self_attn.q_proj'
    """
    config = {**field_defaults(), **config, "prediction_heads": 0}
    shapes = expected_shapes(config)
    found: dict[str, Module] = {}
    names = names or architecture_of(config).names
    for name, part in names.parts(config).items():
        module, _, kind = name.rpartition(".")
        parts = tuple(each.removesuffix(".weight") for each in part.ours)
        if kind != "weight" or not all(_LINEAR.fullmatch(each) for each in parts):
            continue
        # A Conv1D's adapter is laid out as any other's.
        transposed = isinstance(part.layout, Transposed)
        layout = SAME if transposed else part.layout
        sizes = tuple(shapes[each][0] for each in part.ours)
        inputs = shapes[part.ours[0]][1]
        found[module] = Module(module, parts, layout, sizes, inputs, transposed)
    return found


def usual_targets(kind: str, modules: Mapping[str, Module]) -> str | list[str]:
    """Where an adapter of a kind stands if nothing is said: IA3 at keys, values and the last layer
    of the feed-forward part, a bottleneck behind attention and feed-forward part, as their papers
    have it; others everywhere.
    """
    ends = {
        "ia3": (".k_proj", ".v_proj", ".down_proj"),
        "bottleneck": (".o_proj", ".down_proj"),
    }.get(kind)
    if ends is None:
        return ALL_LINEAR
    return [name for name, each in modules.items() if any(p.endswith(ends) for p in each.parts)]


def chosen(modules: Mapping[str, Module], targets: str | Sequence[str]) -> list[Module]:
    """The modules that targets name.

    Parameters
    ----------
    modules
        Of :func:`linear_modules`.
    targets
        ``"all-linear"``, or names and patterns, in a list or with commas: a whole name, its end
        (``q_proj``, ``self_attn.q_proj``), either with ``*`` and ``?``.

    Raises
    ------
    ConfigError
        A target that names no module; the message says which there are.

    Examples
    --------
    >>> from omnima.config import model_preset
    >>> modules = linear_modules(model_preset("nima", vocab_size=64).to_dict())
    >>> [each.name for each in chosen(modules, "layers.0.*.down_proj")]
    ['model.layers.0.mlp.down_proj']
    """
    wanted = targets.split(",") if isinstance(targets, str) else list(targets)
    names: dict[str, None] = {}
    for target in (each.strip() for each in wanted):
        fitting = [name for name in modules if target == ALL_LINEAR or _fits(name, target)]
        if not target or not fitting:
            ends = list(dict.fromkeys(name.rpartition(".")[2] for name in modules))
            raise ConfigError(
                f'No module fits the target "{target}", so the adapter would change nothing. There '
                f"are {', '.join(ends)} (such as {next(iter(modules))}), or {ALL_LINEAR}."
            )
        names |= dict.fromkeys(fitting)
    if not names:
        raise ConfigError("No target was given, so the adapter would change nothing.")
    return [modules[name] for name in modules if name in names]


def _fits(name: str, target: str) -> bool:
    return fnmatch.fnmatchcase(name, target) or fnmatch.fnmatchcase(name, f"*.{target}")
