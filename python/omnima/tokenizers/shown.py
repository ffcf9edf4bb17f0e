"""Tokens as people see them: the text of each, with what cannot be seen written out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from omnima.tokenizers.chat_mask import token_bytes

if TYPE_CHECKING:
    from omnima.tokenizers.tokenizer import Tokenizer


def token_texts(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """Return the text of each token; bytes of a part of a character as ``\\\\xf0``.

    >>> from omnima import Tokenizer
    >>> tokenizer = Tokenizer.train(["a b"], "byte")
    >>> token_texts(tokenizer, tokenizer.encode("aé"))
    ['a', '\\\\xc3', '\\\\xa9']
    """
    described = tokenizer.description
    return [token_bytes(described, id).decode("utf-8", "backslashreplace") for id in ids]


def visible(text: str) -> str:
    """Return the text with control characters written out; line ends stay, marked.

    >>> visible("a\\tb")
    'a\\\\tb'
    """
    return "".join(
        "\u23ce\n" if c == "\n" else c if c.isprintable() else ascii(c)[1:-1] for c in text
    )
