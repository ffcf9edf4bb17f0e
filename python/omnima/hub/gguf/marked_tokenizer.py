"""Tokenizers of the kind "llama" in GGUF metadata: BPE by scores, spaces as U+2581."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub.gguf.token_lists import (
    BYTE,
    CONTROL,
    KIND,
    NORMAL,
    PREFIX,
    UNKNOWN,
    USER,
    adds,
    check_once,
    ends,
    named,
    pieces_and_types,
    prefixed,
    roles_of,
    write_ends,
    write_lists,
)

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers.description import Description, Marking

#: The value of the key KIND.
NAME = "llama"
# Files do not say which tokens take the spaces behind them along; llama.cpp goes by these names.
_STRIPPING_NAMES = ("phi-3", "phi3")
_NOT_STRIPPING = ("<unk>", "<s>", "<|endoftext|>")


def read(metadata: Mapping[str, Any], where: str) -> Description:
    """The tokenizer, by llama.cpp's rules.

    Raises
    ------
    DataError
        For damaged lists, and for scores that are missing or no numbers.
    """
    from omnima.tokenizers.description import (
        BYTE_PATTERN,
        ROLE_BYTE,
        ROLE_SPECIAL,
        ROLE_TEXT,
        ROLE_USER,
        Description,
        Found,
        Marking,
        no_merges,
        own_padding,
    )

    pieces, types = pieces_and_types(metadata, where)
    check_once(pieces, where)
    names = {UNKNOWN: ROLE_SPECIAL, CONTROL: ROLE_SPECIAL, USER: ROLE_USER, BYTE: ROLE_BYTE}
    roles = roles_of(types, names, ROLE_TEXT)
    for piece, role in zip(pieces, roles, strict=True):
        if role == ROLE_BYTE and not BYTE_PATTERN.fullmatch(piece):
            raise DataError(f"{where}: the byte token {piece!r} is none of <0x00> to <0xFF>.")
    if roles.count(ROLE_BYTE) != 256:
        raise DataError(
            f"{where}: {PREFIX}tokens has {roles.count(ROLE_BYTE)} byte tokens; a tokenizer of the "
            f"kind {NAME!r} needs the 256 from <0x00> to <0xFF>."
        )
    bos, eos, pad = ends(metadata, len(pieces), where, bos=1, eos=2)
    unknown = named(metadata, "unknown", len(pieces), where, 0)
    prefix = bool(metadata.get(f"{PREFIX}add_space_prefix", True))
    strips = _strips(metadata)
    return Description(
        kind="bpe",
        pieces=pieces,
        roles=roles,
        merges=no_merges(),
        scores=_read_scores(metadata, len(pieces), where),
        bos=bos,
        eos=eos,
        pad=own_padding(pad, eos),
        unknown=unknown if unknown is not None and roles[unknown] == ROLE_SPECIAL else None,
        adds_bos=adds(metadata, "bos", bos, default=True),
        adds_eos=adds(metadata, "eos", eos, default=False),
        fuse_unknown=True,
        marking=Marking(
            prefix="every" if prefix else "never",
            opening="mark" if prefix else "nothing",
            in_normalizer=True,
            sentencepiece=True,
        ),
        found=[
            Found(i, piece, strips_right=strips and piece not in _NOT_STRIPPING)
            for i, (piece, role) in enumerate(zip(pieces, roles, strict=True))
            if role in (ROLE_SPECIAL, ROLE_USER)
        ],
    )


def _strips(metadata: Mapping[str, Any]) -> bool:
    name = str(metadata.get("general.name", "")).lower()
    return any(each in name for each in _STRIPPING_NAMES)


def _read_scores(metadata: Mapping[str, Any], count: int, where: str) -> list[float]:
    scores = metadata.get(f"{PREFIX}scores")
    if not isinstance(scores, list) or len(scores) != count:
        raise DataError(
            f"{where}: {PREFIX}scores does not have one entry a token; a tokenizer of the kind "
            f"{NAME!r} merges by them."
        )
    for i, score in enumerate(scores):
        if not isinstance(score, float) or not math.isfinite(score):
            raise DataError(f"{where}: {PREFIX}scores has {score!r} for the token {i}.")
    return scores


def takes_text_as_it_is(found: Description) -> bool:
    """Whether it is BPE over characters and bytes whose pieces spell spaces as spaces."""
    from omnima.tokenizers.description import ROLE_TEXT, SPACE_MARK

    return (
        found.kind == "bpe"
        and found.pattern is None
        and found.marking is None
        and not any(
            SPACE_MARK in piece
            for piece, role in zip(found.pieces, found.roles, strict=True)
            if role == ROLE_TEXT
        )
    )


def write(found: Description, vocab_size: int) -> list[Pair]:
    """The keys of a tokenizer that spells spaces as U+2581, filled up to the model's rows.

    Raises
    ------
    ConfigError
        For one that llama.cpp would cut differently.
    """
    from omnima.tokenizers.description import ROLE_BYTE, ROLE_SPECIAL, ROLE_USER, SPACE_MARK

    found, marking = _with_marks(found)
    types = {ROLE_BYTE: BYTE, ROLE_SPECIAL: CONTROL, ROLE_USER: USER}
    kinds = [types.get(role, NORMAL) for role in found.roles]
    if found.unknown is not None and kinds[found.unknown] == CONTROL:
        kinds[found.unknown] = UNKNOWN
    # llama.cpp looks for what users define in the text before it marks the spaces.
    pieces = [
        piece.replace(SPACE_MARK, " ") if role == ROLE_USER else piece
        for piece, role in zip(found.pieces, found.roles, strict=True)
    ]
    own: list[Pair] = [
        ("pre", "str", "default"),
        ("add_space_prefix", "bool", marking.prefix != "never"),
    ]
    if found.unknown is not None:
        own.append(("unknown_token_id", "u32", found.unknown))
    return [
        (KIND, "str", NAME),
        *write_lists(pieces, kinds, vocab_size, _scores(found)),
        *write_ends(found),
        *prefixed(own),
    ]


def _with_marks(found: Description) -> tuple[Description, Marking]:
    """The tokenizer with pieces that spell spaces as U+2581, and how it marks them.

    Raises
    ------
    ConfigError
        For one that llama.cpp would cut differently.
    """
    from omnima.tokenizers.description import ROLE_BYTE, ROLE_TEXT, SPACE_MARK, Marking

    marking = found.marking
    if marking is None:  # its pieces spell spaces as spaces
        marking = Marking()
        pieces = [
            piece.replace(" ", SPACE_MARK) if role == ROLE_TEXT else piece
            for piece, role in zip(found.pieces, found.roles, strict=True)
        ]
        found = replace(found, pieces=pieces, marking=marking)
    wrong = {
        "a unigram model": found.kind == "unigram",
        "words cut before they are merged": marking.words,
        "normalization of characters": marking.characters is not None,
        "spaces that are collapsed": marking.collapse,
        "a vocabulary without the 256 byte tokens": list(found.roles).count(ROLE_BYTE) != 256,
        "a vocabulary without a piece for the space": SPACE_MARK not in found.pieces,
    }
    refused = [what for what, is_so in wrong.items() if is_so]
    if refused:
        raise ConfigError(
            f"This tokenizer cannot be written into GGUF: llama.cpp does not have "
            f"{' and '.join(refused)} with pieces that spell spaces as U+2581."
        )
    return found, marking


def _scores(found: Description) -> list[float]:
    """The scores by which llama.cpp makes the same merges: it makes every pair that is a piece."""
    import numpy as np

    from omnima.tokenizers.description import ROLE_TEXT, ROLE_USER, all_merges

    if found.scores:
        return list(found.scores)
    left, right, result = found.merges.astype(np.int64).T
    starts = np.flatnonzero(np.diff(result, prepend=-1))
    order = result[starts]  # the pieces in the order in which they are merged
    mergeable = {
        piece: i
        for i, (piece, role) in enumerate(zip(found.pieces, found.roles, strict=True))
        if role in (ROLE_TEXT, ROLE_USER)
    }
    pairs = all_merges(mergeable).astype(np.int64)
    missing = ~np.isin(pairs[:, 0] << 32 | pairs[:, 1], left << 32 | right)
    if missing.any() or len(np.unique(order)) < len(order):
        example = found.pieces[int(pairs[missing][0, 2] if missing.any() else order[-1])]
        raise ConfigError(
            "This tokenizer cannot be written into GGUF: llama.cpp merges every two pieces that "
            "join to a piece, by a score of that piece, and these merges are not such (see the "
            f"piece {example!r}). Tokenizers made from models of SentencePiece can be written."
        )
    scores = np.full(len(found.pieces), -float(len(order)) - 1.0)
    scores[order] = -np.arange(len(order), dtype=np.float64)
    return [float(score) for score in scores]
