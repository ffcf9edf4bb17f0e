"""Texts that the core holds, as a sequence whose Python strings are made when they are needed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from omnima import _core


class StoredTexts(Sequence[str]):
    """Many texts, such as the tokens of a file.

    >>> from omnima import _core
    >>> texts = StoredTexts(_core.TextList(["a", "b"]))
    >>> len(texts), texts[1], texts == ["a", "b"]
    (2, 'b', True)
    """

    def __init__(self, stored: _core.TextList) -> None:
        self.stored = stored

    @functools.cached_property
    def _all(self) -> list[str]:
        return self.stored.tolist()

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._all[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __contains__(self, text: object) -> bool:
        return text in self._all

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._all)
