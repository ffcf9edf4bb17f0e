"""More tokens for a tokenizer that is there: they follow the others, whose ids stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from omnima.errors import ConfigError
from omnima.tokenizers.description import (
    BYTE_PATTERN,
    ROLE_ADDED,
    ROLE_SPECIAL,
    ROLE_USER,
    Description,
)


def with_tokens(
    description: Description, tokens: Sequence[str], special: bool
) -> tuple[Description, list[int]]:
    """Return the tokenizer with these tokens, and the id of each.

    Raises
    ------
    ConfigError
        A text that cannot be a token, or a plain token for a kind that has special ones only.
    """
    if isinstance(tokens, str):
        raise ConfigError(f"tokens is one text; give a list, such as [{tokens!r}]")
    if not special and (description.pattern is None or description.kind == "word"):
        raise ConfigError(
            f"a tokenizer of the kind '{description.kind}' takes special tokens only: leave"
            " special at True"
        )
    pieces, roles = list(description.pieces), list(description.roles)
    index = {piece: number for number, piece in enumerate(pieces)}
    wanted = ROLE_SPECIAL if special else ROLE_ADDED
    ids = []
    for token in tokens:
        _check(token)
        number = index.setdefault(token, len(pieces))
        if number == len(pieces):
            pieces.append(token)
            roles.append(wanted)
        elif roles[number] not in (ROLE_SPECIAL, ROLE_ADDED, ROLE_USER):
            raise ConfigError(
                f"{token!r} is a piece of ordinary text already (id {number}); choose another text,"
                f" such as '<|{token.strip('<|>')}|>'"
            )
        ids.append(number)
    scores = list(description.scores)
    scores += [0.0] * (len(pieces) - len(scores)) if scores else []
    return replace(description, pieces=pieces, roles=roles, scores=scores), ids


def _check(token: object) -> None:
    if not isinstance(token, str) or len(token) < 2:
        raise ConfigError(
            f"{token!r} is too short to be a token; use text of two or more characters, such as"
            " '<|user|>'"
        )
    if BYTE_PATTERN.fullmatch(token):
        raise ConfigError(f"{token!r} is the name of a byte token; choose another")
    try:
        token.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{token!r} is invalid Unicode: character {error.start} is half of a surrogate pair"
        ) from None
