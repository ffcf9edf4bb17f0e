"""Which tokens of a conversation the assistant wrote: places in the text, bytes of tokens."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

from omnima.errors import DataError
from omnima.tokenizers.description import ROLE_BYTE, ROLE_TEXT, SPACE_MARK, Description
from omnima.tokenizers.rank_file import byte_spelling


def written(
    description: Description, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """Return 1 for every token that has a byte inside of one of the spans (of characters).

    Raises
    ------
    DataError
        The tokens do not spell the text.
    """
    places = sorted({len(text), *(place for span in spans for place in span)})
    if description.nfc and not unicodedata.is_normalized("NFC", text):
        at = {each: len(unicodedata.normalize("NFC", text[:each]).encode()) for each in places}
        text = unicodedata.normalize("NFC", text)
    else:
        at = lengths(text, places, lambda part: len(part.encode()))
    ends = _ends(description, text.encode(), ids)
    mask = [0] * len(ids)
    for start, end in spans:
        if at[start] < at[end]:
            first, last = bisect_right(ends, at[start]), bisect_left(ends, at[end])
            mask[first : last + 1] = [1] * (last + 1 - first)
    return mask


def lengths(text: str, places: Sequence[int], length: Callable[[str], int]) -> dict[int, int]:
    """Return the length of the text up to each place, in order, by what its parts have."""
    parts = (length(text[begin:end]) for begin, end in zip((0, *places), places))
    return dict(zip(places, accumulate(parts)))


def _ends(description: Description, text: bytes, ids: Sequence[int]) -> list[int]:
    """Where in the text each token ends. A space that was put in front of a text is nothing."""
    spelled: dict[int, bytes] = {}
    ends, at = [], 0
    for token in ids:
        if token not in spelled:
            spelled[token] = token_bytes(description, token)
        piece = spelled[token]
        if description.marking is not None and not text.startswith(piece, at):
            piece = piece.removeprefix(b" ")
        if not text.startswith(piece, at):
            break
        at += len(piece)
        ends.append(at)
    if at != len(text) or len(ends) < len(ids):
        raise DataError(
            "the tokenizer does not give this conversation back byte by byte (it has characters or"
            " words that it does not know, or changes some), so no mask of the assistant's tokens"
            " can be made"
        )
    return ends


def token_bytes(description: Description, token: int) -> bytes:
    """Return the UTF-8 that a token stands for; that may be a part of a character."""
    piece, role = description.pieces[token], description.roles[token]
    if role == ROLE_BYTE:
        return bytes.fromhex(piece[3:5])
    if role == ROLE_TEXT and description.pattern is not None and description.kind != "word":
        return bytes(map(_spelled().__getitem__, piece))  # a character stands for a byte
    if role == ROLE_TEXT and description.marking is not None:
        piece = piece.replace(SPACE_MARK, " ")
    return piece.encode("utf-8")


@cache
def _spelled() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_spelling())}
