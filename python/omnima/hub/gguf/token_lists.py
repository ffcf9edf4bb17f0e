"""The lists and ids that the tokenizers of GGUF files are made of, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnima.errors import DataError

PREFIX = "tokenizer.ggml."
# Types of tokens: normal, unknown, control, user-defined, unused, byte.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
NAMES = ("bos", "eos", "padding")


def texts(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    """The list of texts of that name."""
    value = metadata.get(PREFIX + name)
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise DataError(f"{where}: {PREFIX}{name} is missing, or no list of texts.")
    return value


def pieces_and_types(metadata: Mapping[str, Any], where: str) -> tuple[list[str], list[int]]:
    """The tokens, none of them twice, and the type of each."""
    pieces = texts(metadata, "tokens", where)
    types = metadata.get(f"{PREFIX}token_type", [NORMAL] * len(pieces))
    if (
        not isinstance(types, list)
        or len(types) != len(pieces)
        or not set(map(type, types)) <= {int}
    ):
        raise DataError(f"{where}: {PREFIX}token_type does not have one whole number a token.")
    if len(set(pieces)) < len(pieces):
        raise DataError(f"{where}: {PREFIX}tokens holds a token twice.")
    return pieces, types


def named(
    metadata: Mapping[str, Any], name: str, count: int, where: str, default: int | None = None
) -> int | None:
    """The id of the token that has a role; None, or the default, where the file does not say."""
    value = metadata.get(f"{PREFIX}{name}_token_id")
    if value is None:
        return default if default is None or default < count else None
    if type(value) is not int or not 0 <= value < count:
        raise DataError(
            f"{where}: {PREFIX}{name}_token_id is {value!r}, which is no id of the {count} tokens."
        )
    return value
