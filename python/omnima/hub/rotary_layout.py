"""Which numbers of a head are turned together.

With us the pairs are (i, i + head_dim / 2), and the first pairs turn. Where only the first numbers
of a head turn, the files have their pairs within those, and the rest behind. Queries and keys meet
in products only, so their numbers may change places, if they do so alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TURNED = re.compile(r"\.self_attn\.(q|k)_(proj|norm)\.(weight|bias)$")
_NORM = re.compile(r"\.self_attn\.(q|k)_norm\.(weight|bias)$")


def order(head_dim: int, turned: int) -> list[int]:
    """Where each of our numbers of a head stands in a file.

    >>> order(8, 4)
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    first, second = list(range(turned // 2)), list(range(turned // 2, turned))
    still = list(range(turned, head_dim))
    middle = len(still) // 2
    return first + still[:middle] + second + still[middle:]


def to_ours(
    tensors: Mapping[str, Tensor], places: Sequence[int], projections: bool = True
) -> dict[str, Tensor]:
    """Put the numbers of queries and keys where ours stand, those of norms alone if told so.

    `places` says where each of our numbers of a head stands in the file.
    """
    return _reordered(tensors, places, _TURNED if projections else _NORM)


def from_ours(tensors: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    """Put them back: the inverse of `to_ours`."""
    return _reordered(tensors, [places.index(i) for i in range(len(places))], _TURNED)


def places(config: Mapping[str, Any]) -> list[int]:
    """Where each of our numbers of a head of that model stands in files of other tools."""
    width, share = config["head_dim"], config["partial_rotary_factor"]
    turned = width if config["positions"] != "rotary" else int(width * share)
    return order(width, turned)


def _reordered(
    tensors: Mapping[str, Tensor], places: Sequence[int], moved: re.Pattern[str]
) -> dict[str, Tensor]:
    if list(places) == sorted(places):
        return dict(tensors)
    import torch

    width, index = len(places), torch.tensor(places)

    def turned(tensor: Tensor) -> Tensor:
        by_head = tensor.reshape(-1, width, *tensor.shape[1:])
        return by_head.index_select(1, index.to(tensor.device)).reshape(tensor.shape)

    return {
        name: turned(tensor) if moved.search(name) else tensor for name, tensor in tensors.items()
    }
