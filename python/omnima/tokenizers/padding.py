"""Where a text ends and its padding begins."""

from __future__ import annotations

from collections.abc import Sequence


def end_of_reading(ids: Sequence[int], pad_id: int | None) -> int:
    """Return where a reward model stops reading: behind the last token that is no padding, which is
    where transformers' sequence classifiers look.

    >>> end_of_reading([5, 6, 0, 0], 0), end_of_reading([5, 6], None)
    (2, 2)
    """
    end = len(ids)
    while end > 1 and ids[end - 1] == pad_id:
        end -= 1
    return end
