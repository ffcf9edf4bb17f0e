"""Sessions of chat on disk: plain JSON, checked field by field when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.errors import DataError

_FORMAT = "omnima chat"
_LARGEST = 64 << 20  # bytes; no one reads so long a conversation
_ROLES = ("user", "assistant", "tool")
# Options that an answer may take from a file; none of them names a file or calls anything.
_OPTIONS = {
    **dict.fromkeys(("max_new_tokens", "top_k", "seed"), int),
    **dict.fromkeys(("temperature", "top_p", "min_p"), float),
    **dict.fromkeys(("repetition_penalty", "frequency_penalty", "presence_penalty"), float),
}


@dataclass(frozen=True)
class Saved:
    """What a file holds of a session."""

    system: str | None
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    answers: int


def write(
    path: str | Path,
    system: str | None,
    messages: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    answers: int,
) -> None:
    """Write a session; a file that is there is replaced as a whole."""
    kept = {name: value for name, value in options.items() if name in _OPTIONS}
    content = {
        "format": _FORMAT,
        "system": system,
        "options": kept,
        "answers": answers,
        "messages": [dict(each) for each in messages],
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_durably(Path(path), text.encode("utf-8", "surrogatepass"))


def read(path: str | Path) -> Saved:
    """Read a session.

    Raises
    ------
    DataError
        Names the file and the field that is not as `write` writes it.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise DataError(f"{path} is larger than {_LARGEST} bytes: it is no saved session.")
        found = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not valid UTF-8 (byte {error.start}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise DataError(f'{path} is no saved session: "format" is not "{_FORMAT}".')
    system, answers = found.get("system"), found.get("answers", 0)
    if not (system is None or isinstance(system, str)):
        raise _wrong(path, "system", "text or null")
    if isinstance(answers, bool) or not isinstance(answers, int) or answers < 0:
        raise _wrong(path, "answers", "a number from 0 on")
    return Saved(system, _messages(path, found.get("messages")), _options(path, found), answers)


def _messages(path: str | Path, given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise _wrong(path, "messages", "a list")
    for number, each in enumerate(given):
        whole = isinstance(each, dict) and each.get("role") in _ROLES
        if not whole or not isinstance(each.get("content"), str):
            said = f"an object with a role ({', '.join(_ROLES)}) and a content that is text"
            raise _wrong(path, f"messages[{number}]", said)
    return [{"role": each["role"], "content": each["content"]} for each in given]


def _options(path: str | Path, found: Mapping[str, Any]) -> dict[str, Any]:
    given = found.get("options", {})
    if not isinstance(given, dict):
        raise _wrong(path, "options", "an object")
    for name, value in given.items():
        kind = _OPTIONS.get(name)
        if kind is None:
            raise _wrong(path, f"options.{name}", f"one of {', '.join(_OPTIONS)}")
        accepted = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise _wrong(path, f"options.{name}", f"a number ({kind.__name__})")
    return dict(given)


def _wrong(path: str | Path, field: str, expected: str) -> DataError:
    return DataError(f'{path}: "{field}" must be {expected}; this is no saved session.')
