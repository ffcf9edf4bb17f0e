"""How much of a conversation a model is shown: its newest turns, as far as the context goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omnima.errors import ConfigError


def room_for_history(context: int, max_new_tokens: int) -> int:
    """Tokens that the history may take: an answer gets its own, but half of the context at most.

    >>> room_for_history(100, 20), room_for_history(100, 512)
    (80, 50)
    """
    return max(context - max_new_tokens, context // 2)


def newest_that_fit(
    messages: Sequence[dict[str, Any]],
    encode: Callable[[Sequence[dict[str, Any]]], list[int]],
    room: int,
    context: int,
) -> tuple[list[int], int]:
    """Return the ids of the newest turns that fit, and how many messages are left out for that.

    Parameters
    ----------
    messages
        The history, ending with what is to be answered.
    encode
        Writes messages as the model reads them, the system's words before them.
    room
        Tokens that there are for them.
    context
        Tokens of the whole context, for the error's words.

    Raises
    ------
    ConfigError
        The last message does not fit by itself.
    """
    starts = [i for i, each in enumerate(messages) if each["role"] == "user"] or [0]
    ids = encode(messages[starts[0] :])
    if len(ids) <= room:
        return ids, starts[0]
    # Fewer turns are never longer: halving finds the first that fits without trying each.
    low, high = 1, len(starts)
    fits: tuple[list[int], int] | None = None
    while low < high:
        middle = (low + high) // 2
        ids = encode(messages[starts[middle] :])
        if len(ids) <= room:
            fits, high = (ids, starts[middle]), middle
        else:
            low = middle + 1
    if fits is not None:
        return fits
    raise ConfigError(
        f"the last message needs {len(ids)} tokens with the system's words, but only {room} of "
        f"the model's context of {context} are free for them "
        "beside an answer: shorten it, or ask for fewer new tokens."
    )


def unseen_sentence(unseen: int, context: int) -> str:
    """Say that the oldest messages are not shown to the model any more."""
    return (
        f"The first {unseen} messages no longer fit the context of {context} tokens: the "
        "model does not see them any more."
    )
