"""Where the turns of a conversation end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError

if TYPE_CHECKING:
    from omnima.tokenizers import Tokenizer


def turn_ends(tokenizer: Tokenizer, variables: Mapping[str, Any] | None = None) -> list[int]:
    """Return the token by which the chat template ends the assistant's turns, where it has one.

    >>> from omnima import Tokenizer
    >>> tokenizer = Tokenizer.train(["to be"], "byte", special_tokens=["<end>"])
    >>> tokenizer.chat_template = "{% for m in messages %}{{ m.content + '<end>' }}{% endfor %}"
    >>> tokenizer.pieces(turn_ends(tokenizer))
    ['<end>']
    """
    asked = {"role": "user", "content": "a"}
    try:
        chat = tokenizer.encode_chat(
            [asked, {"role": "assistant", "content": "b"}],
            last_turn_only=True,
            **(variables or {}),
        )
    except DataError:  # a template that wants other messages: the end token alone ends
        return []
    control = tokenizer.control_token_ids()
    return [id for id, mine in zip(chat.ids, chat.assistant_mask) if mine and id in control][-1:]
