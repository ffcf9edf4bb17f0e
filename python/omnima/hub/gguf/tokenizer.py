"""The tokenizer in the metadata of a GGUF file, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers import Tokenizer

_PREFIX = "tokenizer.ggml."
# Types of tokens: normal, unknown, control, user-defined, unused, byte.
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
#: How llama.cpp calls the ways to cut text before merges: theirs, ours and whether a cut that is a
#: piece stays whole. What we write is the first of ours.
_PRE = {
    "gpt-2": ("gpt2", False),
    "smollm": ("gpt2-digits", False),
    "llama-bpe": ("llama3", True),
    "qwen2": ("qwen2", False),
    "gpt-4o": ("o200k", False),
    "olmo": ("gpt2", False),
    "stablelm2": ("qwen2", False),
    "starcoder": ("gpt2-digits", False),
    "refact": ("gpt2-digits", False),
    "llama3": ("llama3", True),
    "llama-v3": ("llama3", True),
}


def read_tokenizer(metadata: Mapping[str, Any], where: str) -> Tokenizer | None:
    """The tokenizer of a file's metadata; None where there is none.

    Raises
    ------
    DataError
        For a kind, or a way to cut text, that Omnima does not have, and for damaged lists.
    """
    kind = metadata.get(f"{_PREFIX}model")
    if kind is None or kind == "no_vocab":
        return None
    if kind != "gpt2":
        raise DataError(
            f"{where}: a tokenizer of the kind {kind!r} ({_PREFIX}model) is not supported; Omnima "
            "reads byte-level BPE ('gpt2')."
        )
    return _byte_level(metadata, where)


def _byte_level(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    import numpy as np

    from omnima.tokenizers import Tokenizer
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL, ROLE_TEXT, Description

    pieces = _texts(metadata, "tokens", where)
    pre = metadata.get(f"{_PREFIX}pre", "gpt-2")
    if pre not in _PRE:
        raise DataError(
            f"{where}: text is to be cut as by {pre!r} ({_PREFIX}pre), which Omnima does not have; "
            f"it knows {', '.join(_PRE)}."
        )
    kinds = metadata.get(f"{_PREFIX}token_type", [_NORMAL] * len(pieces))
    if not isinstance(kinds, list) or len(kinds) != len(pieces):
        raise DataError(f"{where}: {_PREFIX}token_type does not have one entry a token.")
    roles = {_UNKNOWN: ROLE_SPECIAL, _CONTROL: ROLE_SPECIAL, _USER: ROLE_ADDED}
    index = {piece: number for number, piece in enumerate(pieces)}
    if len(index) < len(pieces):
        raise DataError(f"{where}: {_PREFIX}tokens holds a token twice.")
    merges = []
    for line in _texts(metadata, "merges", where):
        left, _, right = line.partition(" ")
        if left not in index or right not in index or left + right not in index:
            raise DataError(f"{where}: the merge {line!r} is not of tokens that are there.")
        merges.append((index[left], index[right], index[left + right]))
    bos, eos, pad = (_named(metadata, name, len(pieces), where) for name in _NAMES)
    pattern, whole = _PRE[pre]
    return Tokenizer(
        Description(
            kind="bpe",
            pieces=pieces,
            roles=[roles.get(kind, ROLE_TEXT) for kind in kinds],
            merges=np.array(merges, dtype=np.uint32).reshape(-1, 3),
            scores=(),
            bos=bos,
            eos=eos,
            pad=None if pad == eos else pad,  # a model would never learn to stop
            pattern=pattern,
            whole_first=whole,
            adds_bos=bool(metadata.get(f"{_PREFIX}add_bos_token", False)) and bos is not None,
            adds_eos=bool(metadata.get(f"{_PREFIX}add_eos_token", False)) and eos is not None,
        )
    )


_NAMES = ("bos", "eos", "padding")


def _texts(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = metadata.get(_PREFIX + name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DataError(f"{where}: {_PREFIX}{name} is missing, or no list of texts.")
    return value


def _named(metadata: Mapping[str, Any], name: str, count: int, where: str) -> int | None:
    value = metadata.get(f"{_PREFIX}{name}_token_id")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < count:
        raise DataError(
            f"{where}: {_PREFIX}{name}_token_id is {value!r}, which is no id of the {count} tokens."
        )
    return value


def write_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> list[Pair]:
    """The keys of a tokenizer, filled up to the rows of the model's embedding.

    Raises
    ------
    ConfigError
        For a kind that llama.cpp would cut differently.
    """
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL, ROLE_TEXT

    found = tokenizer.description
    pre = next((name for name, (ours, _) in _PRE.items() if found.pattern == ours), None)
    if found.kind != "bpe" or pre is None:
        raise ConfigError(
            f"A tokenizer of the kind {found.kind!r} cut by {found.pattern!r} cannot be written "
            f"into GGUF; byte-level BPE cut by {', '.join(ours for ours, _ in _PRE.values())} can."
        )
    kinds = {ROLE_TEXT: _NORMAL, ROLE_SPECIAL: _CONTROL, ROLE_ADDED: _USER}
    spare = vocab_size - len(found.pieces)
    pieces = [*found.pieces, *(f"[PAD{len(found.pieces) + i}]" for i in range(spare))]
    pairs: list[Pair] = [
        ("model", "str", "gpt2"),
        ("pre", "str", pre),
        ("tokens", "[str]", pieces),
        ("token_type", "[i32]", [*(kinds[role] for role in found.roles), *[_UNUSED] * spare]),
        (
            "merges",
            "[str]",
            [f"{found.pieces[a]} {found.pieces[b]}" for a, b, _ in found.merges.tolist()],
        ),
        ("add_bos_token", "bool", found.adds_bos),
        ("add_eos_token", "bool", found.adds_eos),
    ]
    for name, number in zip(_NAMES, (found.bos, found.eos, found.pad), strict=True):
        if number is not None:
            pairs.append((f"{name}_token_id", "u32", number))
    return [(_PREFIX + name, kind, value) for name, kind, value in pairs]
