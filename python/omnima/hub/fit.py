"""Whether a tokenizer is the model's: counts of ids, special ids, and what was saved with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from omnima.tokenizers import Tokenizer

_NAMES = ("bos", "eos", "pad")
# Rows of an embedding beyond the tokenizer's ids: files fill up to a round number, not more.
_SPARE_ROWS, _SPARE_SHARE = 1024, 8


def check_tokenizer(
    tokenizer: Tokenizer, config: Mapping[str, Any], where: str, folder: Path | None = None
) -> None:
    """Refuse a tokenizer that the model has no rows for; warn of one that looks like another's.

    Parameters
    ----------
    tokenizer
        Loaded from beside the model.
    config
        The decoder's configuration.
    where
        Names the model in messages.
    folder
        Holds config.json and generation_config.json, whose special ids are compared.

    Raises
    ------
    DataError
        A special id, or ids of text, for which the embedding has no row.
    """
    rows, ids = int(config["vocab_size"]), tokenizer.vocab_size
    for name in _NAMES:
        value = getattr(tokenizer, f"{name}_id")
        if value is not None and value >= rows:
            token = tokenizer.pieces([value])[0]
            raise DataError(
                f"{where}: the tokenizer's {name} token {token!r} has the id {value}, but the "
                f"model has {rows} rows (vocab_size). {_ADVICE}"
            )
    _check_count(tokenizer, rows, where)
    if folder is not None:
        _compare_ids(tokenizer, _special_ids(folder), rows, where)
    if ids + max(_SPARE_ROWS, rows // _SPARE_SHARE) < rows:
        warnings.warn(
            f"{where}: the tokenizer has {ids:,} ids, but the model {rows:,} (vocab_size): this is "
            "likely another model's tokenizer.",
            stacklevel=3,
        )


_ADVICE = "This is another model's tokenizer: put the files of the model's own beside it."


def _check_count(tokenizer: Tokenizer, rows: int, where: str) -> None:
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL

    ids = tokenizer.vocab_size
    if ids <= rows:
        return
    roles, pieces = tokenizer.description.roles[rows:], tokenizer.description.pieces[rows:]
    if any(role not in (ROLE_ADDED, ROLE_SPECIAL) for role in roles):
        raise DataError(
            f"{where}: the tokenizer has {ids:,} ids, but the model only {rows:,} rows "
            f"(vocab_size). {_ADVICE}"
        )
    warnings.warn(
        f"{where}: the model has no rows for the tokenizer's added tokens "
        f"{', '.join(map(repr, pieces[:8]))}: texts with them cannot be read.",
        stacklevel=4,
    )


def _special_ids(folder: Path) -> dict[str, list[int]]:
    """Which ids the configs beside a model name, all of them: files of chat models name several."""
    found: dict[str, list[int]] = {}
    for file in ("config.json", "generation_config.json"):
        path = folder / file
        raw = read_json_object(path) if path.is_file() else {}
        for name in _NAMES:
            found.setdefault(name, []).extend(_as_ids(raw.get(f"{name}_token_id")))
    return found


def _as_ids(value: object) -> Iterable[int]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if type(each) is int and each >= 0]


def _compare_ids(
    tokenizer: Tokenizer, named: Mapping[str, list[int]], rows: int, where: str
) -> None:
    for name in _NAMES:
        outside = [each for each in named[name] if each >= rows]
        if outside:
            warnings.warn(
                f"{where}: {name}_token_id is {outside[0]} in its config files, but the model has "
                f"{rows} rows (vocab_size). Omnima goes by the tokenizer's.",
                stacklevel=4,
            )
    for name in ("bos", "eos"):
        own = getattr(tokenizer, f"{name}_id")
        if own is not None and named[name] and own not in named[name]:
            warnings.warn(
                f"{where}: the tokenizer's {name} token is {tokenizer.pieces([own])[0]!r} with the "
                f"id {own}, but the config files say {named[name][0]}: is this the tokenizer of "
                "the model? Omnima goes by the tokenizer's.",
                stacklevel=4,
            )
