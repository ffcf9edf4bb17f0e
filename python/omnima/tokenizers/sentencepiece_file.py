"""SentencePiece's own model files, read without its library: a message of Protocol Buffers."""

from __future__ import annotations

import math
import re
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
    ROLE_USER,
    SPACE_MARK,
    Description,
    Found,
    Kind,
    Marking,
    all_merges,
    no_merges,
)

# The numbers of the fields in sentencepiece_model.proto, with their defaults.
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_PIECE, _SCORE, _TYPE = 1, 2, 3
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_MODEL_TYPE, _SPACE_BEHIND, _BYTE_FALLBACK, _BOS, _EOS, _PAD = 3, 24, 35, 41, 42, 43
_KINDS: dict[int, Kind] = {1: "unigram", 2: "bpe"}
_CHARACTERS, _DUMMY_PREFIX, _REMOVE_SPACES, _ESCAPE = 2, 3, 4, 5
_PLAIN = re.compile("[!-@\\[-`a-z{-~]+")  # what no normalization changes
_OF_TRAINER = {_MODEL_TYPE: 1, _SPACE_BEHIND: 0, _BYTE_FALLBACK: 0, _BOS: 1, _EOS: 2, _PAD: -1}
_OF_NORMALIZER = {_DUMMY_PREFIX: 1, _REMOVE_SPACES: 1, _ESCAPE: 1}


@dataclass(frozen=True)
class _Entry:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class _Cleaning:
    """What happens to a text before it is cut."""

    prefix: bool
    collapse: bool
    characters: bytes


def read(path: Path, content: bytes, marked: bool = False) -> Description:
    """Read a model file; DataError names what in it Omnima does not have.

    One that takes text as it is becomes what Omnima trains, unless it is to stay ``marked``.
    """
    try:
        message = _message(content)
        entries = [_entry(each) for each in message.get(_PIECES, [])]
        trainer = _numbers(_message(message[_TRAINER][-1]), _OF_TRAINER)
        normalizer = _message(message[_NORMALIZER][-1])
        flags = _numbers(normalizer, _OF_NORMALIZER)
        denormalizer = _bytes(_message(_bytes(message, _DENORMALIZER)), _CHARACTERS)
        cleaning = _Cleaning(
            prefix=bool(flags[_DUMMY_PREFIX]),
            collapse=bool(flags[_REMOVE_SPACES]),
            characters=_bytes(normalizer, _CHARACTERS),
        )
    except (KeyError, TypeError, ValueError, IndexError, struct.error):
        raise DataError(
            f"{path}: neither a tokenizer.json, nor a rank file of tiktoken, nor a model file of"
            " SentencePiece; or it is damaged"
        ) from None
    kind = _KINDS.get(trainer[_MODEL_TYPE])
    cleans = cleaning.collapse or bool(cleaning.characters)
    others = {
        "a model of type word or char": kind is None,
        "a denormalizer": bool(denormalizer),
        "spaces that stay spaces": not flags[_ESCAPE],
        # SentencePiece keeps those as they are where it replaces characters.
        **{f"the user-defined piece {each.text!r} beside normalization": True for each in entries
           if each.kind == _USER and cleans and not _PLAIN.fullmatch(each.text)},
    }  # fmt: skip
    _check(path, entries, trainer, others)
    assert kind is not None
    takes_as_it_is = cleaning == _Cleaning(False, False, b"") and trainer[_BYTE_FALLBACK]
    if not marked and takes_as_it_is and all(each.kind != _USER for each in entries):
        return _plain(kind, entries, trainer)
    return _marked(kind, entries, trainer, cleaning)


def _check(
    path: Path, entries: list[_Entry], trainer: dict[int, int], others: dict[str, bool]
) -> None:
    """Refuse what would give other ids than SentencePiece does."""
    for each in entries:
        if not math.isfinite(each.score):
            raise DataError(
                f"{path}: the score of the piece {each.text!r} is {each.score}, not a finite"
                " number: the file is damaged, fetch or train it again"
            )
    unused = [each.text for each in entries if each.kind == _UNUSED]
    texts = [_plain_text(each) for each in entries]
    count = sum(each.kind == _BYTE for each in entries)
    wrong = {
        **others,
        "treat_whitespace_as_suffix": bool(trainer[_SPACE_BEHIND]),
        f"byte_fallback with {count} of the 256 byte tokens": count
        != (len(BYTE_PIECES) if trainer[_BYTE_FALLBACK] else 0),
        "a vocabulary without an unknown piece and without byte_fallback": not trainer[
            _BYTE_FALLBACK
        ]
        and all(each.kind != _UNKNOWN for each in entries),
        "a piece that is there twice": len(set(texts)) < len(texts),
        **{f"the unused piece {text!r}": True for text in unused[:1]},
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise DataError(
            f"{path}: {' and '.join(found)} of SentencePiece is not supported; Omnima reads BPE and"
            " unigram models that write a space as U+2581 at the start of a piece"
        )


_ROLES = {
    _NORMAL: ROLE_TEXT,
    _BYTE: ROLE_BYTE,
    _UNKNOWN: ROLE_SPECIAL,
    _CONTROL: ROLE_SPECIAL,
    _USER: ROLE_USER,
}


def _plain_text(entry: _Entry) -> str:
    return entry.text.replace(SPACE_MARK, " ") if entry.kind == _NORMAL else entry.text


def _named(entries: list[_Entry], number: int) -> int | None:
    """Return the id, where it is that of a control piece: others are none for SentencePiece."""
    is_one = 0 <= number < len(entries) and entries[number].kind == _CONTROL
    return number if is_one else None


def _plain(kind: Kind, entries: list[_Entry], trainer: dict[int, int]) -> Description:
    """Return what takes text as it is: its pieces spell spaces as spaces."""
    pieces = [_plain_text(each) for each in entries]
    ranked = sorted(
        (i for i, each in enumerate(entries) if each.kind == _NORMAL),
        key=lambda i: -entries[i].score,
    )
    return Description(
        kind=kind,
        pieces=pieces,
        roles=[_ROLES[each.kind] for each in entries],
        merges=all_merges({pieces[i]: i for i in ranked}) if kind == "bpe" else no_merges(),
        scores=[each.score for each in entries] if kind == "unigram" else (),
        bos=_named(entries, trainer[_BOS]),
        eos=_named(entries, trainer[_EOS]),
        pad=_named(entries, trainer[_PAD]),
    )


def _marked(
    kind: Kind, entries: list[_Entry], trainer: dict[int, int], cleaning: _Cleaning
) -> Description:
    """Return what writes spaces as U+2581 and merges by scores."""
    unknown = next((i for i, each in enumerate(entries) if each.kind == _UNKNOWN), None)
    found = [
        Found(i, each.text, after_normalizer=each.kind == _USER and kind == "bpe")
        for i, each in enumerate(entries)
        if each.kind in (_UNKNOWN, _CONTROL) or (each.kind == _USER and kind == "bpe")
    ]
    return Description(
        kind=kind,
        pieces=[each.text for each in entries],
        roles=[_ROLES[each.kind] for each in entries],
        merges=no_merges(),
        scores=[each.score for each in entries],
        bos=_named(entries, trainer[_BOS]),
        eos=_named(entries, trainer[_EOS]),
        pad=_named(entries, trainer[_PAD]),
        unknown=unknown,
        fuse_unknown=True,
        marking=Marking(
            prefix="every" if cleaning.prefix else "never",
            opening="marks" if cleaning.collapse else "mark" if cleaning.prefix else "nothing",
            in_normalizer=True,
            collapse=cleaning.collapse,
            sentencepiece=True,
            characters=cleaning.characters or None,
        ),
        found=found,
    )


def _entry(content: bytes) -> _Entry:
    fields = _message(content)
    text = str(fields[_PIECE][-1], "utf-8")
    kind = _numbers(fields, {_TYPE: _NORMAL})[_TYPE]
    if (
        not _NORMAL <= kind <= _BYTE
        or not text
        or (kind == _BYTE and not BYTE_PATTERN.fullmatch(text))
    ):
        raise ValueError(f"the piece {text!r} is of kind {kind}")
    (score,) = struct.unpack("<f", fields.get(_SCORE, [bytes(4)])[-1])
    return _Entry(text, score, kind)


def _bytes(fields: dict[int, Any], field: int) -> bytes:
    """Return the bytes of a field, none by default; ValueError for a number."""
    value = fields.get(field, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"the field {field} is a number")
    return value


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
