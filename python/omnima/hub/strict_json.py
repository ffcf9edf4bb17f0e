"""JSON files, read strictly: one object, no key twice, no NaN, errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from omnima.errors import DataError

# Above the largest tokenizer-free JSON of any model; a bigger file is not a config.
_LARGEST = 64 << 20


def read_json_object(path: Path) -> dict[str, Any]:
    """Read one JSON object from a file, or raise DataError naming the file and the place."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is larger than {_LARGEST} bytes: it is not a config file.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not valid UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(f'{path}: the key "{key}" stands twice.')
            found[key] = value
        return found

    def refuse(constant: str) -> NoReturn:
        raise DataError(f"{path}: {constant} is not a JSON number.")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be a config.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value
