"""A chat template as text, and what comes of one."""

from __future__ import annotations

from dataclasses import dataclass

from omnima.errors import DataError

LARGEST = 128 << 10  # bytes: compiling a longer one can take many seconds


@dataclass(frozen=True)
class ChatTemplate:
    """The text of a template, and where it is from, for messages."""

    text: str
    source: str = "the chat template"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DataError(
                f"{self.source}: a chat template is text, not {type(self.text).__name__}"
            )
        try:
            check_size(len(self.text.encode("utf-8")), self.source)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.source}: character {error.start} is half of a surrogate pair"
            ) from None


def check_size(size: int, source: str) -> None:
    """Refuse what is too long to be a template (in bytes)."""
    if size > LARGEST:
        raise DataError(
            f"{source}: longer than {LARGEST} bytes, which no template for chats needs; is this"
            " another file?"
        )


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation, and where in it the assistant's words are (in characters)."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()
