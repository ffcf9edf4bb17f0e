"""What a record says, whatever its format: a conversation, a text to go on with, or a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Messages = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Conversation:
    """Messages, of which those of the assistant are learned (or the last of them alone)."""

    messages: Messages
    place: str = "the conversation"
    tools: tuple[Mapping[str, Any], ...] | None = None
    last_turn_only: bool = False


@dataclass(frozen=True)
class Completion:
    """A text and how it goes on: no chat template is applied, and the end token follows."""

    prompt: str
    completion: str
    place: str = "the text"


@dataclass(frozen=True)
class Pair:
    """Two answers to the same: the one that people preferred, and the other."""

    chosen: Conversation | Completion
    rejected: Conversation | Completion
    place: str = "the pair"


@dataclass(frozen=True)
class Judged:
    """An answer, and whether people liked it."""

    answer: Conversation | Completion
    good: bool
    place: str = "the answer"


@dataclass(frozen=True)
class PlainText:
    """A text without question and answer."""

    text: str
    place: str = "the text"


Example: TypeAlias = "Conversation | Completion | Pair | Judged | PlainText"
