"""The tensors of a GGUF file as our parameters, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError
from omnima.hub.architectures import rotary_layout
from omnima.hub.gguf.form import GgufForm, place_of
from omnima.hub.names import expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


def _by_tensor(config: Mapping[str, Any], form: GgufForm) -> dict[str, list[str]]:
    """Our parameters in each tensor, in their order there."""
    found: dict[str, list[str]] = {}
    for name in expected_shapes(config):
        found.setdefault(place_of(name, form).tensor, []).append(name)
    for tensor, names in found.items():
        module = tensor.rpartition(".")[0].rpartition(".")[2]
        if module in form.fused:  # in the order of the fused one, not of ours
            order = form.fused[module]
            names.sort(key=lambda name: [f".{each}." in name for each in order].index(True))
    return found


def _is_stacked(tensor: str) -> bool:
    return "_exps." in tensor


def shapes_of(config: Mapping[str, Any], form: GgufForm) -> dict[str, Shape]:
    """Name and shape of every tensor of a file."""
    ours = expected_shapes(config)
    shapes: dict[str, Shape] = {}
    for tensor, names in _by_tensor(config, form).items():
        first = ours[names[0]]
        if _is_stacked(tensor):
            shapes[tensor] = (len(names), *first)
        else:
            shapes[tensor] = (sum(ours[name][0] for name in names), *first[1:])
    return shapes


def to_ours(
    read: Callable[[str], Tensor], config: Mapping[str, Any], form: GgufForm
) -> dict[str, Tensor]:
    """Our parameters; `read` gives a tensor by name."""
    shapes = expected_shapes(config)
    found: dict[str, Tensor] = {}
    for tensor, names in _by_tensor(config, form).items():
        whole = read(tensor)
        if _is_stacked(tensor):
            parts = list(whole.unbind())
        else:
            parts = list(whole.split_with_sizes([shapes[name][0] for name in names]))
        found.update(zip(names, parts, strict=True))
    if form.interleaved:
        found = _turned(found, config, apart)
    return rotary_layout.to_ours(found, config)


def from_ours(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], form: GgufForm
) -> dict[str, Tensor]:
    """The tensors of a file: the inverse of `to_ours`."""
    import torch

    laid = rotary_layout.from_ours(tensors, config)
    if form.interleaved:
        laid = _turned(laid, config, together)
    return {
        tensor: torch.stack([laid[name] for name in names])
        if _is_stacked(tensor)
        else torch.cat([laid[name] for name in names])
        for tensor, names in _by_tensor(config, form).items()
    }


def together(tensor: Tensor, head_dim: int) -> Tensor:
    """Rows of heads with their pairs (i, i + head_dim / 2) as neighbours."""
    by_half = tensor.reshape(-1, 2, head_dim // 2, *tensor.shape[1:])
    return by_half.transpose(1, 2).reshape(tensor.shape)


def apart(tensor: Tensor, head_dim: int) -> Tensor:
    """The inverse of `together`."""
    by_pair = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return by_pair.transpose(1, 2).reshape(tensor.shape)


def _turned(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], turn: Callable[[Tensor, int], Tensor]
) -> dict[str, Tensor]:
    ends = tuple(f"self_attn.{part}_proj.{kind}" for part in "qk" for kind in ("weight", "bias"))
    width = config["head_dim"]
    return {
        name: turn(tensor, width) if name.endswith(ends) else tensor
        for name, tensor in tensors.items()
    }


def check(
    found: Mapping[str, Shape], config: Mapping[str, Any], form: GgufForm, where: str
) -> None:
    """DataError where tensors are missing, unexpected or of another shape."""
    expected = shapes_of(config, form)
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected and name not in IGNORED]
    if missing or unexpected:
        raise DataError(
            f"{where}: the tensors do not fit the keys. Missing: {', '.join(missing[:8]) or 'none'}"
            f". Unexpected: {', '.join(unexpected[:8]) or 'none'}."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise DataError(
                f"{where}, tensor {name!r}: its shape is {found[name]}, but the keys ask for "
                f"{shape}."
            )


#: Tensors that say what the keys might: they are read elsewhere, or computed anew.
IGNORED = frozenset({"rope_freqs.weight"})
