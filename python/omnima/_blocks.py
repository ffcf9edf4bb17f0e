"""Long sequences in blocks, so that work on many items is done at once in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def blocks_of(items: Iterable[_T], size: Callable[[_T], int], enough: int) -> Iterator[list[_T]]:
    """Yield lists of items in their order, each as soon as their sizes add up to `enough`.

    >>> list(blocks_of(["to", "be", "or", "not"], len, 4))
    [['to', 'be'], ['or', 'not']]
    """
    block: list[_T] = []
    held = 0
    for item in items:
        block.append(item)
        held += size(item)
        if held >= enough:
            yield block
            block, held = [], 0
    if block:
        yield block
