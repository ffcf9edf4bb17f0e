"""How a tensor in a file lies beside our parameters that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Config = Mapping[str, Any]


class Layout:
    """Our parameters one below the other; a single one as it is."""

    #: Whether rows keep their numbers as they are: then a row may be bytes that stand for numbers.
    moves_rows = True

    #: Whether it only moves rows within each head: `order` says how.
    within_heads = False

    def order(self, width: int) -> list[int]:
        """Where each of our rows of a head of that width lies."""
        return list(range(width))

    def shape(self, ours: Sequence[Shape]) -> Shape:
        """The shape of the tensor that holds parameters of these shapes."""
        return (sum(shape[0] for shape in ours), *ours[0][1:])

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        """The file's tensor from our parameters."""
        import torch

        return ours[0] if len(ours) == 1 else torch.cat(list(ours))

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        """Our parameters, of the shapes given, from the file's tensor: the inverse of `join`."""
        import torch

        if len(shapes) == 1:
            return [theirs.contiguous()]
        pieces = torch.split(theirs, [shape[0] for shape in shapes])
        return [piece.contiguous() for piece in pieces]


class Transposed(Layout):
    """GPT-2's ``Conv1D``: weights lie [in, out]."""

    moves_rows = False

    def shape(self, ours: Sequence[Shape]) -> Shape:
        return super().shape(ours)[::-1]

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        return super().join(ours, config).t().contiguous()

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        return super().part(theirs.t(), shapes, config)


class ByHead(Layout):
    """GPT-NeoX's fused projection: each head's queries, keys and values lie together."""

    moves_rows = False

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        import torch

        heads, width = config["num_attention_heads"], config["head_dim"]
        by_head = [each.reshape(heads, width, *each.shape[1:]) for each in ours]
        return torch.stack(by_head, 1).reshape(-1, *ours[0].shape[1:])

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        heads, width = config["num_attention_heads"], config["head_dim"]
        by_head = theirs.reshape(heads, len(shapes), width, *theirs.shape[1:])
        return [by_head[:, i].reshape(shape).contiguous() for i, shape in enumerate(shapes)]


class Stacked(Layout):
    """GGUF's experts: one above the other in a dimension of their own."""

    def shape(self, ours: Sequence[Shape]) -> Shape:
        return (len(ours), *ours[0])

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        import torch

        return torch.stack(list(ours))

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        return list(theirs.unbind())


class Interleaved(Layout):
    """Rows of heads whose numbers that turn together are neighbours: (0, 1), (2, 3), …

    With us they are (i, i + head_dim / 2).

    >>> Interleaved().order(6)
    [0, 2, 4, 1, 3, 5]
    """

    within_heads = True

    def order(self, width: int) -> list[int]:
        return [*range(0, width, 2), *range(1, width, 2)]

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        return _halves_turned(ours[0], (2, config["head_dim"] // 2))

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        return [_halves_turned(theirs, (config["head_dim"] // 2, 2))]


def _halves_turned(tensor: Tensor, shape: tuple[int, int]) -> Tensor:
    import torch

    # Whole rows are copied one by one: faster than a transposition, which moves numbers.
    rows = torch.arange(len(tensor)).reshape(-1, *shape).transpose(1, 2).reshape(-1)
    return tensor.index_select(0, rows.to(tensor.device))


class LessOne(Layout):
    """Gemma's norms multiply by one more than the file says; ours by what they hold."""

    moves_rows = False

    def join(self, ours: Sequence[Tensor], config: Config) -> Tensor:
        return ours[0] - 1

    def part(self, theirs: Tensor, shapes: Sequence[Shape], config: Config) -> list[Tensor]:
        return [theirs + 1]


SAME = Layout()
