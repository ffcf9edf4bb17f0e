"""What a tokenizer is made of, apart from any file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnima.errors import ConfigError

Kind = Literal["bpe", "unigram", "char", "byte", "word"]
KINDS: tuple[Kind, ...] = ("bpe", "unigram", "char", "byte", "word")
WORD_PATTERN = "gpt2"  # a word has the space before it, so that words join to the text

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
BYTE_PIECES = tuple(f"<0x{value:02X}>" for value in range(256))
BYTE_PATTERN = re.compile(r"<0x[0-9A-F]{2}>")

ROLE_TEXT, ROLE_BYTE, ROLE_SPECIAL, ROLE_ADDED, ROLE_USER = 0, 1, 2, 3, 4
SPACE_MARK = "\u2581"  # how SentencePiece and those after it write a space

Prefix = Literal["never", "first", "always", "every"]
Opening = Literal["nothing", "space", "mark", "marks", "piece"]


@dataclass(frozen=True)
class Marking:
    """How a text becomes what pieces spell whose spaces are U+2581, and back."""

    prefix: Prefix = "never"  # which stretches between found tokens get a mark in front
    opening: Opening = "nothing"  # what a decoded text loses where it begins
    in_normalizer: bool = False  # marked before the tokens are found that are normalized
    words: bool = False  # every mark begins a word, and no piece reaches across words
    collapse: bool = False  # no space at the ends, one where several are
    sentencepiece: bool = False  # rules of SentencePiece and llama.cpp where they differ
    characters: bytes | None = None  # SentencePiece's map of characters


@dataclass(frozen=True)
class Found:
    """A token that is found in a text before the text is cut."""

    id: int
    text: str
    strips_left: bool = False
    strips_right: bool = False
    after_normalizer: bool = False


@dataclass(frozen=True)
class Description:
    """A tokenizer as plain data; pieces are in the order of their ids, merges in that of rank."""

    kind: Kind
    pieces: Sequence[str]
    roles: Sequence[int]
    merges: NDArray[np.uint32]  # [merges, 3]: left, right, result
    scores: Sequence[float]  # one a piece: unigram, and BPE that merges by them
    bos: int | None
    eos: int | None
    pad: int | None
    unknown: int | None = None
    pattern: str | None = None  # how text is cut into words, or before byte-level merges
    whole_first: bool = False  # byte-level: a cut that is a piece is that piece
    nfc: bool = False  # text is brought to normalization form C first
    adds_bos: bool = False  # what AutoTokenizer adds by itself; here encode() is asked to
    adds_eos: bool = False
    fuse_unknown: bool = False  # neighbouring unknown characters are one unknown token
    marking: Marking | None = None
    found: Sequence[Found] = ()  # tokens that are not here are found by their pieces

    @property
    def algorithm(self) -> str:
        """The algorithm of the core that runs this tokenizer."""
        return self.kind if self.kind in ("unigram", "word") else "bpe"


def own_padding(pad: int | None, end: int | None) -> int | None:
    """Return the padding token, but none where a file pads with the end token.

    Many files of models do, SmolLM2's and GPT-2's fine-tunes among them; a model that is trained
    further with such padding would never learn to stop.
    """
    return None if pad == end else pad


def no_merges() -> NDArray[np.uint32]:
    """Return an empty table of merges."""
    return np.zeros((0, 3), dtype=np.uint32)


def all_merges(ids: Mapping[str, int]) -> NDArray[np.uint32]:
    """Return every way to make a piece out of two others, in the order of the pieces."""
    # Halves of a length that no piece has are not even cut out: a piece may be very long.
    lengths = {len(piece) for piece in ids}
    rows = [
        (ids[piece[:cut]], ids[piece[cut:]], number)
        for piece, number in ids.items()
        for cut in range(1, len(piece))
        if cut in lengths and len(piece) - cut in lengths
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    return np.array(rows, dtype=np.uint32).reshape(-1, 3)


def merges_by_score(description: Description) -> NDArray[np.uint32]:
    """Return the merges of a BPE whose pieces have scores, in the order of transformers' files.

    The best score goes first; of equal ones the longer halves, as its converters sort them.
    """
    mergeable = {
        piece: i
        for i, (piece, role) in enumerate(zip(description.pieces, description.roles, strict=True))
        if role in (ROLE_TEXT, ROLE_USER)
    }
    merges = all_merges(mergeable)
    if not len(merges):
        return merges
    pieces, scores = description.pieces, np.asarray(description.scores)
    lengths = np.array([len(piece) for piece in pieces])
    left, right, result = merges.T
    order = np.lexsort((right, left, -lengths[right], -lengths[left], -scores[result]))
    return merges[order]


def check_kind(kind: str) -> Kind:
    """Return the kind, or raise a ConfigError that lists the right ones."""
    for known in KINDS:
        if kind == known:
            return known
    raise ConfigError(f"tokenizer kind '{kind}' is unknown; expected one of {', '.join(KINDS)}")


def special_pieces(kind: Kind, user_tokens: Sequence[str]) -> list[str]:
    """Return the special tokens in id order: padding, begin, end, the user's, then unknown."""
    builtin = [PAD, BOS, EOS]
    tail = [UNKNOWN] if kind in ("char", "word") else []
    seen = {*builtin, UNKNOWN}
    for token in user_tokens:
        if not isinstance(token, str) or len(token) < 2:
            raise ConfigError(
                f"special token {token!r} is too short; use text of two or more characters, such"
                " as '<|user|>'"
            )
        if token in seen:
            raise ConfigError(
                f"special token {token!r} is given twice or is built in already; leave it out"
            )
        if BYTE_PATTERN.fullmatch(token):
            raise ConfigError(
                f"special token {token!r} is the name of a byte token; choose another"
            )
        seen.add(token)
    return [*builtin, *user_tokens, *tail]


def build(
    kind: Kind,
    specials: Sequence[str],
    text_pieces: Sequence[str],
    merges: NDArray[np.uint32] | None = None,
    scores: Sequence[float] = (),
) -> Description:
    """Put a description together: specials, then byte tokens (where there are any), then text."""
    byte_pieces = () if kind in ("char", "word") else BYTE_PIECES
    pieces = [*specials, *byte_pieces, *text_pieces]
    roles = (
        [ROLE_SPECIAL] * len(specials)
        + [ROLE_BYTE] * len(byte_pieces)
        + [ROLE_TEXT] * len(text_pieces)
    )
    index = {piece: position for position, piece in enumerate(specials)}
    return Description(
        kind=kind,
        pieces=pieces,
        roles=roles,
        merges=no_merges() if merges is None else merges,
        scores=scores,
        bos=index[BOS],
        eos=index[EOS],
        pad=index[PAD],
        unknown=index.get(UNKNOWN),
        pattern=WORD_PATTERN if kind == "word" else None,
    )
