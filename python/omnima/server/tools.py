"""Tool calls: functions that a client offers, and what a model wrote parsed back to calls of them.

Models write calls in one of a few forms, which their chat template shows: `<tool_call>` with JSON
inside (Hermes, Qwen, SmolLM), `[TOOL_CALLS]` with a list (Mistral), or JSON alone (Llama 3).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_TAG, _END = "<tool_call>", "</tool_call>"
_LIST = "[TOOL_CALLS]"
_PYTHON = "<|python_tag|>"
#: What begins a call.
MARKS = (_TAG, _LIST, _PYTHON)


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wrote; the arguments are JSON."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")

    def as_json(self) -> dict[str, Any]:
        """The call as OpenAI's interface has it."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


def schema_of_calls(functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The schema of JSON that calls one of the functions.

    >>> schema_of_calls([{"name": "now"}])["properties"]["name"]
    {'const': 'now'}
    """
    each = [
        {
            "type": "object",
            "properties": {
                "name": {"const": one["name"]},
                "arguments": one.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for one in functions
    ]
    return each[0] if len(each) == 1 else {"anyOf": each}


class ToolParser:
    """Parts what a model writes into words for the user and calls, while it comes.

    Parameters
    ----------
    names
        Of the functions that were offered; JSON that calls another one is text.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._calling = False  # the held text is a call, as far as one sees
        self._said = False  # some words of the answer have been released

    def push(self, text: str) -> str:
        """Take more of the text; return the words that are surely none of a call."""
        self._held += text
        if self._calling:
            return ""
        begins = [at for mark in MARKS if (at := self._held.find(mark)) >= 0]
        if begins:
            return self._begin(min(begins))
        if not self._said:
            plain = self._held.lstrip()
            if not plain:
                return ""
            if plain[0] in "{[":
                return self._begin(len(self._held) - len(plain))
        return self._release(len(self._held) - _unsure(self._held))

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return the words that are left, and the calls."""
        held, self._held = self._held, ""
        calls = self._parsed(held) if self._calling else []
        return ("" if calls else held), calls

    def _begin(self, at: int) -> str:
        self._calling = True
        return self._release(at)

    def _release(self, count: int) -> str:
        words, self._held = self._held[:count], self._held[count:]
        self._said = self._said or bool(words.strip())
        return words

    def _parsed(self, text: str) -> list[ToolCall]:
        text = text.strip()
        for mark in (_LIST, _PYTHON):
            text = text.removeprefix(mark)
        parts = text.split(_TAG)[1:] if _TAG in text else [text]
        calls: list[ToolCall] = []
        for part in parts:
            try:
                value = json.loads(part.split(_END)[0].strip())
            except (ValueError, RecursionError):
                return []
            for one in value if isinstance(value, list) else [value]:
                call = self._call(one)
                if call is None:
                    return []
                calls.append(call)
        return calls

    def _call(self, value: Any) -> ToolCall | None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            return ToolCall(name, arguments)
        return ToolCall(name, json.dumps(arguments, ensure_ascii=False))


def _unsure(text: str) -> int:
    """The length of the longest end that may be the beginning of a call."""
    longest = max(map(len, MARKS)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in MARKS):
            return length
    return 0
