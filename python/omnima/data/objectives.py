"""Other things to learn than the next token: masked tokens, and spans that were cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima._core import ObjectiveOptions

MASK = "<|mask|>"
# What tokenizers call them; the first of each is what ours get.
_MASKS = (MASK, "<mask>", "[MASK]")
_SENTINELS = ("<|span_{}|>", "<extra_id_{}>")


def describe(name: str, rate: float, span_length: float) -> ObjectiveOptions:
    """Return the core's options of an objective, still without the ids of its special tokens."""
    import torch  # noqa: F401  (the extension links to its libraries)

    from omnima._core import ObjectiveOptions

    options = ObjectiveOptions()
    options.name, options.rate, options.span_length = name, rate, span_length
    return options


def special_tokens(name: str, time: int, rate: float, span_length: float) -> tuple[str, ...]:
    """Return what a tokenizer needs for rows of `time` tokens.

    >>> special_tokens("masked", 64, 0.15, 3.0), special_tokens("span", 32, 0.15, 3.0)
    (('<|mask|>',), ('<|span_0|>',))
    """
    if name == "masked":
        return (MASK,)
    if name != "span":
        return ()
    count = describe(name, rate, span_length).spans_in_row(time)
    return tuple(_SENTINELS[0].format(number) for number in range(count))


def with_tokens(
    name: str, rate: float, span_length: float, tokenizer: Any
) -> ObjectiveOptions | None:
    """Return the options of an objective for a tokenizer; None for the next token.

    Raises
    ------
    ConfigError
        The tokenizer lacks the special tokens of the objective.
    """
    if name == "next_token":
        return None
    options = describe(name, rate, span_length)
    known: dict[str, int] = tokenizer.special_tokens
    options.vocab_size = tokenizer.vocab_size
    options.kept = sorted(known.values())
    if name == "masked":
        options.mask_id = _mask_id(known)
    else:
        options.sentinels = _sentinel_ids(known)
    return options


def _mask_id(known: dict[str, int]) -> int:
    for each in _MASKS:
        if each in known:
            return known[each]
    raise ConfigError(
        f"objective masked needs a mask token, but the tokenizer has none of {', '.join(_MASKS)} "
        f"among its special tokens. Let the run train its own, or train one with "
        f'special_tokens=("{MASK}",).'
    )


def _sentinel_ids(known: dict[str, int]) -> list[int]:
    for form in _SENTINELS:
        ids: list[int] = []
        while form.format(len(ids)) in known:
            ids.append(known[form.format(len(ids))])
        if ids:
            return ids
    raise ConfigError(
        "objective span needs sentinels, but the tokenizer has neither "
        f"{' nor '.join(form.format(0) for form in _SENTINELS)} among its special tokens. Let the "
        'run train its own, or train one with special_tokens=("<|span_0|>", "<|span_1|>", …).'
    )
