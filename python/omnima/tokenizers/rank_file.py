"""Rank files as tiktoken has them: on each line a token's bytes in base64 and its rank."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnima.errors import ConfigError, DataError
from omnima.tokenizers.description import ROLE_SPECIAL, ROLE_TEXT, Description
from omnima.tokenizers.stages import REGEXES

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
# tiktoken's own spelling where it is another than that of tokenizer.json, and its names.
SPELLINGS = {
    _GPT2: "gpt2",
    _CL100K: "cl100k",
    **{regex: name for name, regex in REGEXES.items() if name != "cl100k"},
    **dict.fromkeys(("r50k", "p50k", "r50k_base", "p50k_base"), "gpt2"),
    "cl100k_base": "cl100k",
    "o200k_base": "o200k",
}
NAMES = (*REGEXES, "gpt2-digits")
_END = "<|endoftext|>"
# The control tokens of the files that OpenAI publishes, by pattern and number of ranks.
_PUBLISHED = {
    ("gpt2", 50256): {_END: 50256},
    ("gpt2", 50280): {_END: 50256},
    ("cl100k", 100256): {
        _END: 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
    ("o200k", 199998): {_END: 199999, "<|endofprompt|>": 200018},
}


def read(
    path: Path,
    pattern: str,
    special_tokens: Mapping[str, int] | Sequence[str] | None,
    bos_token: str | None,
    eos_token: str | None,
) -> Description:
    """Read a rank file; see ``Tokenizer.from_rank_file``."""
    name = _pattern_name(pattern)
    ranks = _read_ranks(path)
    specials = _specials(path, name, ranks, special_tokens)
    pieces, roles = _pieces(ranks, specials)
    return Description(
        kind="bpe",
        pieces=pieces,
        roles=roles,
        merges=_merges(ranks),
        scores=(),
        bos=_named(specials, bos_token, ("<|begin_of_text|>", _END), "bos_token"),
        eos=_named(specials, eos_token, ("<|end_of_text|>", _END), "eos_token"),
        pad=None,
        pattern=name,
        whole_first=True,
    )


def byte_spelling() -> list[str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary."""
    spelling, spare = [], 0x100
    for byte in range(256):
        if 0x20 < byte < 0x7F or (byte > 0xA0 and byte != 0xAD):
            spelling.append(chr(byte))
        else:
            spelling.append(chr(spare))
            spare += 1
    return spelling


def _pattern_name(pattern: str) -> str:
    name = pattern if pattern in NAMES else SPELLINGS.get(pattern)
    if name is None:
        raise ConfigError(
            f"the split pattern '{pattern}' is unknown; expected one of {', '.join(NAMES)}, or"
            " tiktoken's regular expression of one of them"
        )
    return name


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: the rank file cannot be read: {error.strerror}") from None
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            code, rank = line.split()
            token, value = base64.b64decode(code, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not a token in base64 and its rank, such"
                " as 'IHRoZQ== 262'"
            ) from None
        if not token or token in ranks or value < 0:
            raise DataError(
                f"{path}, line {number}: the token {token!r} is empty, there twice or has a"
                f" negative rank ({value})"
            )
        ranks[token] = value
    if not ranks:
        raise DataError(f"{path}: the rank file is empty")
    if len(set(ranks.values())) < len(ranks) or max(ranks.values()) >= 2 * len(ranks):
        raise DataError(
            f"{path}: the ranks of its {len(ranks)} tokens are not all different, or one is far"
            " beyond their number"
        )
    return ranks


def _specials(
    path: Path,
    name: str,
    ranks: Mapping[bytes, int],
    given: Mapping[str, int] | Sequence[str] | None,
) -> dict[str, int]:
    behind = max(ranks.values()) + 1
    if given is None:
        specials = _PUBLISHED.get((name, len(ranks)), {_END: behind})
    elif isinstance(given, Mapping):
        specials = dict(given)
    else:
        specials = {token: behind + i for i, token in enumerate(given)}
    taken = set(ranks.values())
    for token, token_id in specials.items():
        if token_id in taken or not 0 <= token_id < 2 * behind or not token:
            raise ConfigError(
                f"the special token {token!r} has the id {token_id}, which is another's or"
                f" out of bounds; the ranks of {path} end at {behind - 1}"
            )
        taken.add(token_id)
    return dict(specials)


def _pieces(ranks: Mapping[bytes, int], specials: Mapping[str, int]) -> tuple[list[str], list[int]]:
    """Return the pieces and roles by id; an id that nobody has gets a control token."""
    spelling = byte_spelling()
    names = {special.encode() for special in specials}
    if same := names & ranks.keys():
        raise ConfigError(
            f"the special token {same.pop().decode()!r} is a token of the ranks too; choose another"
        )
    size = max([*ranks.values(), *specials.values()]) + 1
    pieces = [f"<|unused_{i}|>" for i in range(size)]
    roles = [ROLE_SPECIAL] * size
    for token, rank in ranks.items():
        pieces[rank] = "".join(spelling[byte] for byte in token)
        roles[rank] = ROLE_TEXT
    for special, token_id in specials.items():
        pieces[token_id] = special
    return pieces, roles


def _merges(ranks: Mapping[bytes, int]) -> NDArray[np.uint32]:
    """Return every way to make a token of two others, by its rank, then by theirs."""
    rows: list[tuple[int, int, int]] = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        ways = []
        for cut in range(1, len(token)):
            left, right = ranks.get(token[:cut]), ranks.get(token[cut:])
            if left is not None and right is not None:
                ways.append((left, right, rank))
        rows += sorted(ways)
    return np.array(rows, dtype=np.uint32).reshape(-1, 3)


def _named(
    specials: Mapping[str, int], asked: str | None, usual: Sequence[str], what: str
) -> int | None:
    if asked is not None:
        if asked not in specials:
            raise ConfigError(
                f"{what} is {asked!r}, which is none of the special tokens:"
                f" {', '.join(specials) or 'there are none'}"
            )
        return specials[asked]
    return next((specials[token] for token in usual if token in specials), None)
