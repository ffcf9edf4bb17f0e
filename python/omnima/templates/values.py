"""What a template is given: messages and other values, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnima.errors import DataError

# The names that the thoughts of a message go by; templates read the first, some the second.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


def conversation(messages: Any) -> list[dict[str, Any]]:
    """Return messages as templates take them: plain, without what is None."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(
            "messages must be a list of at least one message, such as "
            '{"role": "user", "content": "Hello"}'
        )
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(
                f"messages[{number}] is {type(message).__name__}; expected an object with role and"
                " content"
            )
        plain_message = plain(message, f"messages[{number}]")
        kept = {key: value for key, value in plain_message.items() if value is not None}
        thought = next((kept[name] for name in _THOUGHTS if name in kept), None)
        if thought is not None:
            kept = {"thinking": thought, **kept, "reasoning_content": thought}
        found.append(kept)
    return found


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """Copy a value made of JSON's kinds; a template is handed nothing with methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a class of its own: the text alone
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth > 64:
        raise DataError(f"{name} is nested deeper than 64")
    if isinstance(value, Mapping):
        return {
            plain(key, name, depth + 1): plain(each, f"{name}[{key!r}]", depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        copied = [plain(each, f"{name}[{i}]", depth + 1) for i, each in enumerate(value)]
        return tuple(copied) if isinstance(value, tuple) else copied
    hint = (
        "; give the tool's JSON schema, such as transformers.utils.get_json_schema(function) makes"
        if callable(value)
        else ""
    )
    raise DataError(
        f"{name} is {type(value).__name__}; a chat template takes text, numbers, true, false, none,"
        f" lists and dictionaries{hint}"
    )
