"""From what a caller calls a prompt to token ids, and to the seed of each."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from typing import TypeAlias

from omnima.errors import ConfigError
from omnima.generation.protocols import TextCodec

Prompt: TypeAlias = "str | Sequence[int]"
Prompts: TypeAlias = "Prompt | Sequence[Prompt]"


def as_list(prompts: Prompts) -> list[Prompt]:
    """One text or one row of ids is a list of one prompt."""
    if isinstance(prompts, str):
        return [prompts]
    rows = list(prompts)
    if rows and all(_is_id(row) for row in rows):
        return [[operator.index(row) for row in rows]]  # type: ignore[arg-type]
    return rows  # type: ignore[return-value]


def encode(prompt: Prompt, tokenizer: TextCodec | None) -> list[int]:
    """Return a prompt's ids.

    Text gets the begin token before it where the tokenizer has one, as in training; an empty prompt
    is that token alone, or the end token that divides documents.
    """
    if not isinstance(prompt, str):
        try:
            return [operator.index(token) for token in prompt]
        except TypeError:
            raise ConfigError(
                f"A prompt is text or a list of token ids; got {prompt!r:.80}."
            ) from None
    if tokenizer is None:
        raise ConfigError("The prompt is text, but there is no tokenizer: give one, or token ids.")
    ids = list(tokenizer.encode(prompt, add_bos=tokenizer.bos_id is not None))
    if ids:
        return ids
    if tokenizer.eos_id is None:
        raise ConfigError(
            "The prompt is empty and the tokenizer has no begin token to start from: write at"
            " least one character."
        )
    return [tokenizer.eos_id]


def seeds(rows: Sequence[Sequence[int]], seed: int | Sequence[int] | None) -> list[int]:
    """Return one seed a prompt.

    A single seed serves all, but the second, third, … copy of the same prompt takes the next
    numbers: so a prompt's text does not depend on the prompts beside it, and copies differ.
    """
    if seed is None:
        seed = secrets.randbits(32)
    if isinstance(seed, Sequence):
        if len(seed) != len(rows):
            raise ConfigError(f"seed has {len(seed)} numbers, but there are {len(rows)} prompts.")
        return [_checked(each) for each in seed]
    copies: dict[tuple[int, ...], int] = {}
    given = []
    for row in map(tuple, rows):
        copies[row] = copies.get(row, -1) + 1
        given.append(_checked(seed) + copies[row])
    return given


def _checked(seed: int) -> int:
    if not 0 <= operator.index(seed) < 2**63:
        raise ConfigError(f"seed is {seed}, but it must lie between 0 and 2**63 - 1.")
    return operator.index(seed)


def _is_id(value: object) -> bool:
    return hasattr(value, "__index__") and not hasattr(value, "__len__")
