"""The lists, ids and switches that the tokenizers of GGUF files are made of, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omnima.errors import DataError

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers.description import Description
    from omnima.tokenizers.stored_texts import StoredTexts

PREFIX = "tokenizer.ggml."
#: The key that says which kind of tokenizer a file has.
KIND = f"{PREFIX}model"
# Types of tokens: normal, unknown, control, user-defined, unused, byte.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
_SPARE_SCORE = -10000.0


def texts(metadata: Mapping[str, Any], name: str, where: str) -> StoredTexts:
    """The list of texts of that name."""
    from omnima import _core
    from omnima.tokenizers.stored_texts import StoredTexts

    value = metadata.get(PREFIX + name)
    if isinstance(value, _core.TextList):
        return StoredTexts(value)
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise DataError(f"{where}: {PREFIX}{name} is missing, or no list of texts.")
    return StoredTexts(_core.TextList(value))


def pieces_and_types(metadata: Mapping[str, Any], where: str) -> tuple[StoredTexts, bytes]:
    """The tokens and the type of each."""
    pieces = texts(metadata, "tokens", where)
    types = metadata.get(f"{PREFIX}token_type")
    found = bytes([NORMAL] * len(pieces)) if types is None else _bytes(types)
    if found is None or len(found) != len(pieces):
        raise DataError(
            f"{where}: {PREFIX}token_type does not have one whole number a token, from 0 to 255."
        )
    return pieces, found


def _bytes(numbers: object) -> bytes | None:
    """Whole numbers from 0 to 255 in a byte each; None where there is anything else."""
    if isinstance(numbers, np.ndarray):
        narrow = numbers.astype(np.uint8)
        return narrow.tobytes() if np.array_equal(narrow, numbers) else None
    try:
        return bytes(numbers) if isinstance(numbers, list) else None
    except (TypeError, ValueError):  # texts, fractions, numbers that are no byte
        return None


def check_once(pieces: StoredTexts, where: str) -> None:
    """Refuse tokens of which one stands twice."""
    if pieces.stored.holds_twice():
        raise DataError(f"{where}: {PREFIX}tokens holds a token twice.")


def roles_of(types: bytes, roles: Mapping[int, int], otherwise: int) -> bytes:
    """The role of each token by its type.

    >>> list(roles_of(bytes([1, 3, 1]), {CONTROL: 2}, otherwise=0))
    [0, 2, 0]
    """
    return types.translate(bytes(roles.get(kind, otherwise) for kind in range(256)))


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


def ends(
    metadata: Mapping[str, Any],
    count: int,
    where: str,
    bos: int | None = None,
    eos: int | None = None,
) -> tuple[int | None, int | None, int | None]:
    """The ids that begin, end and pad texts; the first two may have a default."""
    return (
        named(metadata, "bos", count, where, bos),
        named(metadata, "eos", count, where, eos),
        named(metadata, "padding", count, where),
    )


def adds(metadata: Mapping[str, Any], name: str, token: int | None, default: bool) -> bool:
    """Whether that token ("bos", "eos") is put to every text."""
    return token is not None and bool(metadata.get(f"{PREFIX}add_{name}_token", default))


def prefixed(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with the prefix of tokenizers before their keys.

    >>> prefixed([("model", "str", "gpt2")])
    [('tokenizer.ggml.model', 'str', 'gpt2')]
    """
    return [(PREFIX + key, kind, value) for key, kind, value in pairs]


def write_lists(
    pieces: Sequence[str],
    types: Sequence[int],
    vocab_size: int,
    scores: Sequence[float] | None = None,
) -> list[Pair]:
    """The tokens with their types and scores, filled up to the rows of the model's embedding.

    >>> for pair in write_lists(["a", "b"], [NORMAL, CONTROL], vocab_size=3):
    ...     print(pair)
    ('tokenizer.ggml.tokens', '[str]', ['a', 'b', '[PAD2]'])
    ('tokenizer.ggml.token_type', '[i32]', [1, 3, 5])
    """
    spare = range(len(pieces), vocab_size)
    pairs: list[Pair] = [
        ("tokens", "[str]", [*pieces, *(f"[PAD{i}]" for i in spare)]),
        ("token_type", "[i32]", [*types, *(UNUSED for _ in spare)]),
    ]
    if scores is not None:
        pairs.append(("scores", "[f32]", [*scores, *(_SPARE_SCORE for _ in spare)]))
    return prefixed(pairs)


def write_ends(found: Description) -> list[Pair]:
    """The ids that begin, end and pad texts, and which of them are put to every text."""
    pairs: list[Pair] = [
        ("add_bos_token", "bool", found.adds_bos),
        ("add_eos_token", "bool", found.adds_eos),
    ]
    ids = {"bos": found.bos, "eos": found.eos, "padding": found.pad}
    pairs += [(f"{name}_token_id", "u32", i) for name, i in ids.items() if i is not None]
    return prefixed(pairs)
