"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(I?)B?\s*")


def read_size(text: str) -> int | None:
    """Return the bytes of a size such as `4MB`, `500k` or `1.5GiB`; None where it is none.

    >>> read_size("4MB"), read_size("1GiB"), read_size("many")
    (4000000, 1073741824, None)
    """
    match = _SIZE.fullmatch(text.upper())
    if match is None or (match[3] and not match[2]):
        return None
    unit = 1024 if match[3] else 1000
    size = int(float(match[1]) * unit ** " KMG".index(match[2] or " "))
    return size or None
