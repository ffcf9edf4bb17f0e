"""Tokenizer files of others, told apart by what they hold: JSON, ranks, or SentencePiece."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omnima.errors import ConfigError, DataError
from omnima.tokenizers import files, rank_file, sentencepiece_file
from omnima.tokenizers.description import ROLE_SPECIAL, Description

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} +[0-9]+\s*(\n|$)")


def read(
    path: Path,
    pattern: str | None = None,
    special_tokens: Sequence[str] | None = None,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> Description:
    """Read a file of any of the three kinds, or a directory; see ``Tokenizer.from_file``."""
    if path.is_dir():
        path = path / files.TOKENIZER_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the tokenizer cannot be read: {error.strerror}") from None
    if _RANK_LINE.match(content):
        if pattern is None and path.stem not in (*rank_file.NAMES, *rank_file.SPELLINGS):
            raise ConfigError(
                f"{path} is a rank file, which does not say how text is cut first: give pattern"
                f" (--pattern), one of {', '.join(rank_file.NAMES)}"
            )
        return rank_file.read(path, pattern or path.stem, special_tokens, bos_token, eos_token)
    given = {"pattern (--pattern)": pattern, "special_tokens (--special)": special_tokens}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} goes with a rank file only, and {path} is not one: omit it")
    if content.lstrip()[:1] == b"{":
        return files.read_json(path, {"bos_token": bos_token, "eos_token": eos_token})
    found = sentencepiece_file.read(path, content)
    bos = found.bos if bos_token is None else _special(path, found, bos_token)
    eos = found.eos if eos_token is None else _special(path, found, eos_token)
    return replace(found, bos=bos, eos=eos)


def _special(path: Path, found: Description, token: str) -> int:
    specials = {
        piece: i
        for i, (piece, role) in enumerate(zip(found.pieces, found.roles, strict=True))
        if role == ROLE_SPECIAL
    }
    if token not in specials:
        raise ConfigError(
            f"{token!r} is none of the special tokens of {path}: {', '.join(specials)}"
        )
    return specials[token]
