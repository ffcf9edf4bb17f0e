"""What guesses the tokens ahead: the text itself, or a draft model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.generation.protocols import LanguageModel, TextCodec

if TYPE_CHECKING:
    from omnima._core import Engine

LOOKUP = "lookup"


def guesses_of(speculation: str | LanguageModel | None, most: int) -> int:
    """Return the tokens to guess at once; 0 without speculation."""
    if isinstance(speculation, str) and speculation != LOOKUP:
        raise ConfigError(
            f'speculation is "{speculation}"; it is "{LOOKUP}", a draft model, or None.'
        )
    if speculation is None:
        return 0
    if most < 1:
        raise ConfigError(
            f"speculative_tokens is {most}: guess at least one token, or leave speculation out."
        )
    return most


def draft_of(speculation: str | LanguageModel | None, tokenizer: TextCodec | None) -> Engine | None:
    """Return the engine of a draft model whose tokens mean what ours mean."""
    if speculation is None or isinstance(speculation, str):
        return None
    check_pieces(tokenizer, getattr(speculation, "tokenizer", None))
    return speculation.engine


def check_pieces(ours: Any, theirs: Any) -> None:
    """Refuse a draft model's tokenizer whose ids stand for other pieces than ours."""
    mine, other = (
        getattr(getattr(each, "description", None), "pieces", None) for each in (ours, theirs)
    )
    if mine is None or other is None:
        return  # ids alone: their number is all there is to compare
    if len(mine) != len(other):
        raise ConfigError(
            f"The draft model's tokenizer has {len(other)} pieces, but the model's has {len(mine)}:"
            " a draft model must have the same vocabulary."
        )
    for index, (one, two) in enumerate(zip(mine, other, strict=True)):
        if one != two:
            raise ConfigError(
                f"The draft model's token {index} is {two!r}, but the model's is {one!r}: a draft"
                " model must have the same vocabulary."
            )
