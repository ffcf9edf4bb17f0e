"""SentencePiece's own model files, read without its library: a message of Protocol Buffers."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnima.errors import DataError
from omnima.tokenizers.description import (
    BYTE_PATTERN,
    BYTE_PIECES,
    ROLE_BYTE,
    ROLE_SPECIAL,
    ROLE_TEXT,
    Description,
    Kind,
    all_merges,
    no_merges,
)

_SPACE = "\u2581"  # how SentencePiece writes a space
# The numbers of the fields in sentencepiece_model.proto, with their defaults.
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_PIECE, _SCORE, _TYPE = 1, 2, 3
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_TYPE_NAMES = {4: "user-defined", 5: "unused"}
_MODEL_TYPE, _SPACE_BEHIND, _BYTE_FALLBACK, _BOS, _EOS, _PAD = 3, 24, 35, 41, 42, 43
_KINDS: dict[int, Kind] = {1: "unigram", 2: "bpe"}
_CHARACTERS, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE = 2, 3, 4, 5
_OF_TRAINER = {_MODEL_TYPE: 1, _SPACE_BEHIND: 0, _BYTE_FALLBACK: 0, _BOS: 1, _EOS: 2, _PAD: -1}
_OF_NORMALIZER = {_DUMMY_PREFIX: 1, _REMOVE_SPACES: 1, _ESCAPE: 1}


@dataclass(frozen=True)
class _Entry:
    text: str  # a normal piece with its spaces as spaces
    score: float
    kind: int


def read(path: Path, content: bytes) -> Description:
    """Read a model file; DataError names what in it Omnima does not have."""
    try:
        message = _message(content)
        entries = [_entry(each) for each in message.get(_PIECES, [])]
        trainer = _numbers(_message(message[_TRAINER][-1]), _OF_TRAINER)
        cleaning = _message(message[_NORMALIZER][-1])
        normalizer = _numbers(cleaning, _OF_NORMALIZER)
        other = _message(message.get(_DENORMALIZER, [b""])[-1])
    except (KeyError, TypeError, ValueError, IndexError, struct.error):
        raise DataError(
            f"{path}: neither a tokenizer.json, nor a rank file of tiktoken, nor a model file of"
            " SentencePiece; or it is damaged"
        ) from None
    kind = _KINDS.get(trainer[_MODEL_TYPE])
    changes_characters = any(part.get(_CHARACTERS, [b""])[-1] for part in (cleaning, other))
    _check(path, kind, entries, trainer, normalizer, changes_characters)
    assert kind is not None
    return _description(kind, entries, trainer)


def _check(
    path: Path,
    kind: Kind | None,
    entries: list[_Entry],
    trainer: dict[int, int],
    normalizer: dict[int, int],
    changes_characters: bool,
) -> None:
    """Refuse what would give other ids than SentencePiece does."""
    for each in entries:
        if not math.isfinite(each.score):
            raise DataError(
                f"{path}: the score of the piece {each.text!r} is {each.score}, not a finite"
                " number: the file is damaged, fetch or train it again"
            )
    others = [each for each in entries if each.kind in _TYPE_NAMES]
    texts = [each.text for each in entries]
    wrong = {
        "a model of type word or char": kind is None,
        "normalization of characters": changes_characters,
        "add_dummy_prefix": bool(normalizer[_DUMMY_PREFIX]),
        "remove_extra_whitespaces": bool(normalizer[_REMOVE_SPACES]),
        "spaces that stay spaces": not normalizer[_ESCAPE],
        "treat_whitespace_as_suffix": bool(trainer[_SPACE_BEHIND]),
        "a vocabulary without byte_fallback": not trainer[_BYTE_FALLBACK]
        or sum(each.kind == _BYTE for each in entries) != len(BYTE_PIECES),
        "a piece that is there twice": len(set(texts)) < len(texts),
        **{f"the {_TYPE_NAMES[each.kind]} piece {each.text!r}": True for each in others[:1]},
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise DataError(
            f"{path}: {' and '.join(found)} of SentencePiece is not supported; Omnima reads BPE and"
            " unigram models with byte_fallback that take text as it is (trained with"
            " normalization_rule_name=identity, add_dummy_prefix=false and"
            " remove_extra_whitespaces=false)"
        )


def _description(kind: Kind, entries: list[_Entry], trainer: dict[int, int]) -> Description:
    roles = {_NORMAL: ROLE_TEXT, _BYTE: ROLE_BYTE, _UNKNOWN: ROLE_SPECIAL, _CONTROL: ROLE_SPECIAL}
    pieces = [each.text for each in entries]
    ranked = sorted(
        (i for i, each in enumerate(entries) if each.kind == _NORMAL),
        key=lambda i: -entries[i].score,
    )

    def named(field: int) -> int | None:
        """Return the id, where it is that of a control piece: others are none for SentencePiece."""
        number = trainer[field]
        is_one = 0 <= number < len(entries) and entries[number].kind == _CONTROL
        return number if is_one else None

    return Description(
        kind=kind,
        pieces=pieces,
        roles=[roles[each.kind] for each in entries],
        merges=all_merges({pieces[i]: i for i in ranked}) if kind == "bpe" else no_merges(),
        scores=[each.score for each in entries] if kind == "unigram" else (),
        bos=named(_BOS),
        eos=named(_EOS),
        pad=named(_PAD),
    )


def _entry(content: bytes) -> _Entry:
    fields = _message(content)
    text = str(fields[_PIECE][-1], "utf-8")
    kind = _numbers(fields, {_TYPE: _NORMAL})[_TYPE]
    known = {_NORMAL, _UNKNOWN, _CONTROL, _BYTE, *_TYPE_NAMES}
    if kind not in known or not text or (kind == _BYTE and not BYTE_PATTERN.fullmatch(text)):
        raise ValueError(f"the piece {text!r} is of kind {kind}")
    (score,) = struct.unpack("<f", fields.get(_SCORE, [bytes(4)])[-1])
    return _Entry(text.replace(_SPACE, " ") if kind == _NORMAL else text, score, kind)


def _numbers(fields: dict[int, Any], defaults: Mapping[int, int]) -> dict[int, int]:
    """Return the whole numbers of the fields that have these defaults; ValueError for bytes."""
    found = {}
    for field, default in defaults.items():
        value = fields.get(field, [default])[-1]
        if not isinstance(value, int):
            raise ValueError(f"the field {field} is not a number")
        found[field] = value - (1 << 64) if value >= 1 << 63 else value
    return found


def _message(content: bytes) -> dict[int, Any]:
    """Return the values of each field: numbers, or bytes."""
    fields: dict[int, Any] = {}
    for number, value in _fields(content):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of wire type {kind}")
        size, at = _varint(content, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(content):
            raise ValueError("a field reaches beyond the end")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise ValueError("a number of more than ten bytes")
