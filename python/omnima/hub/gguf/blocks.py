"""Our quantized matrices in the blocks of GGUF that hold the same numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_NUMBERS = 32  # of a block of these types
# GGUF's type, the bytes before the levels of a group, and those of 32 levels.
_SAME = {"int8": ("q8_0", 2, 32), "int4": ("q4_0", 2, 16), "int4z": ("q4_1", 4, 16)}


def as_gguf(format: str, blocks: Tensor) -> tuple[str, Tensor] | None:
    """The type and the bytes that hold the numbers of a matrix; None where its groups are no whole
    blocks of 32.

    A larger group becomes several blocks that repeat its scale.

    Raises
    ------
    ConfigError
        GGUF has no type for such numbers.
    """
    import torch

    found = re.fullmatch(r"(\w+)_g(\d+)", format)
    if found is None or found[1] not in _SAME:
        raise ConfigError(
            f"No type of GGUF holds the numbers of {format}: quantize to int4 or int8 for it, or "
            "give a dtype to have them rounded anew."
        )
    (name, head, body), group = _SAME[found[1]], int(found[2])
    if group % _NUMBERS:
        return None
    parts = group // _NUMBERS
    by_group = blocks.reshape(len(blocks), -1, head + parts * body)
    heads = by_group[..., :head].unsqueeze(2).expand(-1, -1, parts, -1)
    levels = by_group[..., head:].reshape(len(blocks), -1, parts, body)
    return name, torch.cat([heads, levels], -1).reshape(len(blocks), -1)
