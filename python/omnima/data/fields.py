"""The text of a record's field: what every format of records (JSON lines, tables) checks."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from omnima.data.text import lone_surrogate
from omnima.errors import DataError


def absent(field: str, names: Iterable[str], kind: str = "field") -> DataError:
    """The error for a field that a record lacks; it names the nearest and all there are."""
    known = list(names)
    near = get_close_matches(field, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(map(repr, known[:20])) + (", …" if len(known) > 20 else "")
    return DataError(
        f"no {kind} {field!r}; {hint}there are {shown or 'none'}. "
        "Name the right one with field=… (--field)."
    )


def check_text(value: Any, field: str, kind: str = "field") -> str:
    """The value, if it is text that a model can learn from; a list of texts is read as its lines.

    Raises
    ------
    DataError
        If it is no text, empty, nothing but white space, or no valid Unicode.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise DataError(
            f"{kind} {field!r} is a {type(value).__name__}, not text. Name a {kind} of strings."
        )
    if not value or value.isspace():
        how = "holds nothing but white space" if value else "is empty"
        raise DataError(f"{kind} {field!r} {how}. Fill it or take the record out.")
    if fault := lone_surrogate(value):
        raise DataError(f"{kind} {field!r}: {fault}. Mend or remove the character.")
    return value
