"""Where in a conversation the assistant's turns are, where its template does not say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omnima.errors import DataError

GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class RewrittenTurnError(DataError):
    """A template that writes an earlier turn otherwise once another follows it."""


def spans(
    render: Callable[[Sequence[Mapping[str, Any]], bool], str],
    messages: Sequence[Mapping[str, Any]],
    whole: str,
    control: re.Pattern[str],
    last_only: bool = False,
) -> tuple[tuple[int, int], ...]:
    """Return begin and end of each of the assistant's turns, in characters of the whole text.

    A turn is what the conversation up to it has beyond the words that open it (the generation
    prompt). White space behind its last control token is the template's, not the turn's: writing
    ends at that token.

    Parameters
    ----------
    render
        The text of some first messages, with or without the words that open an answer.
    messages, whole
        The conversation and its text.
    control
        Finds control tokens.
    last_only
        The last turn alone.

    Raises
    ------
    RewrittenTurnError
        An earlier turn looks different in the whole conversation.
    DataError
        The words that open an answer are not how the answer begins.
    """
    turns = [number for number, each in enumerate(messages) if each.get("role") == "assistant"]
    found = []
    for number in turns[-1:] if last_only else turns:
        ended = whole if number == len(messages) - 1 else render(messages[: number + 1], False)
        opened = render(messages[:number], True) if number else ""
        if not whole.startswith(ended):
            raise RewrittenTurnError(
                f"this chat template writes message {number + 1} otherwise once others follow it"
            )
        if not ended.startswith(opened):
            raise DataError(
                f"message {number + 1}, the assistant's, does not begin with the words by which "
                "this chat template lets the assistant begin (add_generation_prompt), so it is not "
                "known what the assistant writes: put its words between {% generation %} and "
                "{% endgeneration %} in the template"
            )
        found.append((len(opened), _end(ended, len(opened), control)))
    return tuple(found)


def _end(text: str, start: int, control: re.Pattern[str]) -> int:
    """The end of a turn: behind its last control token, where only white space follows that."""
    ends = [match.end() for match in control.finditer(text, start)]
    return ends[-1] if ends and not text[ends[-1] :].strip() else len(text)
