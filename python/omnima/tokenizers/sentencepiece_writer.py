"""SentencePiece's own model files, written without its library."""

from __future__ import annotations

import struct

from omnima.tokenizers.description import (
    ROLE_BYTE,
    ROLE_SPECIAL,
    ROLE_TEXT,
    ROLE_USER,
    Description,
)

_TYPES = {ROLE_TEXT: 1, ROLE_SPECIAL: 3, ROLE_USER: 4, ROLE_BYTE: 6}
_UNKNOWN_TYPE = 2
_MODEL_TYPES = {"unigram": 1, "bpe": 2}


def write(description: Description) -> bytes:
    """Return the model file of a tokenizer by SentencePiece's rules."""
    marking = description.marking
    assert marking is not None and marking.sentencepiece
    parts = []
    for i, (piece, role) in enumerate(zip(description.pieces, description.roles, strict=True)):
        kind = _UNKNOWN_TYPE if i == description.unknown else _TYPES[role]
        score = struct.pack("<f", description.scores[i])
        parts.append(_bytes(1, _bytes(1, piece.encode()) + b"\x15" + score + _number(3, kind)))
    trainer = _number(3, _MODEL_TYPES[description.kind]) + _number(4, len(description.pieces))
    trainer += _number(35, int(ROLE_BYTE in description.roles))
    named = (description.unknown, description.bos, description.eos, description.pad)
    for field, token in enumerate(named, start=40):
        trainer += _number(field, -1 if token is None else token)
    for field, token in enumerate(named, start=45):
        if token is not None:
            trainer += _bytes(field, description.pieces[token].encode())
    normalizer = _bytes(1, b"identity" if marking.characters is None else b"user_defined")
    normalizer += _bytes(2, marking.characters or b"")
    normalizer += _number(3, int(marking.prefix != "never")) + _number(4, int(marking.collapse))
    return b"".join([*parts, _bytes(2, trainer), _bytes(3, normalizer)])


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
