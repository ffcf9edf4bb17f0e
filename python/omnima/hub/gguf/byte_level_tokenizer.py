"""Tokenizers of the kind "gpt2" in GGUF metadata: byte-level BPE by merges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub.gguf.token_lists import (
    CONTROL,
    KIND,
    NORMAL,
    PREFIX,
    UNKNOWN,
    USER,
    adds,
    ends,
    pieces_and_types,
    prefixed,
    roles_of,
    texts,
    write_ends,
    write_lists,
)

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers import Tokenizer
    from omnima.tokenizers.chat_files import Templates
    from omnima.tokenizers.description import Description

#: The value of the key KIND.
NAME = "gpt2"
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


def begin(metadata: Mapping[str, Any], where: str) -> Callable[[Templates], Tokenizer]:
    """Begin to build the tokenizer, by llama.cpp's rules, beside what the caller does.

    Returns
    -------
    callable
        Waits for the tokenizer and gives it those chat templates. DataError for damaged lists.

    Raises
    ------
    DataError
        For a way to cut text that Omnima does not have, and for lists that are missing.
    """
    from omnima import _core
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL, ROLE_TEXT, own_padding

    pieces, types = pieces_and_types(metadata, where)
    pre = metadata.get(f"{PREFIX}pre", "gpt-2")
    if not isinstance(pre, str) or pre not in _PRE:
        raise DataError(
            f"{where}: text is to be cut as by {pre!r} ({PREFIX}pre), which Omnima does not have; "
            f"it knows {', '.join(_PRE)}."
        )
    pattern, whole = _PRE[pre]
    roles = roles_of(
        types, {UNKNOWN: ROLE_SPECIAL, CONTROL: ROLE_SPECIAL, USER: ROLE_ADDED}, ROLE_TEXT
    )
    bos, eos, pad = ends(metadata, len(pieces), where)
    build = _core.TokenizerBuild(
        pieces=pieces.stored,
        roles=roles,
        merge_lines=texts(metadata, "merges", where).stored,
        bos=bos,
        eos=eos,
        pad=own_padding(pad, eos),
        pattern=pattern,
        whole_first=whole,
    )

    def finish(templates: Templates) -> Tokenizer:
        from omnima.tokenizers.description import Description
        from omnima.tokenizers.stored_texts import StoredTexts
        from omnima.tokenizers.tokenizer import Tokenizer

        try:
            core = build.tokenizer()
        except DataError as error:
            raise DataError(f"{where}: {error}.") from None
        description = Description(
            kind="bpe",
            pieces=StoredTexts(core.pieces()),
            roles=roles,
            merges=core.merges(),
            scores=(),
            bos=bos,
            eos=eos,
            pad=own_padding(pad, eos),
            pattern=pattern,
            whole_first=whole,
            adds_bos=adds(metadata, "bos", bos, default=False),
            adds_eos=adds(metadata, "eos", eos, default=False),
        )
        return Tokenizer(description, templates, core)

    return finish


def write(found: Description, vocab_size: int) -> list[Pair]:
    """The keys of a byte-level tokenizer, filled up to the model's rows.

    Raises
    ------
    ConfigError
        For one that llama.cpp would cut differently.
    """
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL, ROLE_TEXT

    if found.kind == "byte":
        found = _spelled(found)
    cut = (found.pattern, found.whole_first)
    pre = next((name for name, ours in _PRE.items() if ours == cut), None)
    if found.kind != "bpe" or pre is None:
        known = ", ".join(dict.fromkeys(pattern for pattern, _ in _PRE.values()))
        raise ConfigError(
            f"A tokenizer of the kind {found.kind!r}"
            f"{'' if found.pattern is None else f' cut by {found.pattern!r}'} cannot be written "
            f"into GGUF; byte-level BPE cut by {known} as llama.cpp does it can, and BPE "
            "that spells spaces as U+2581."
        )
    types = {ROLE_TEXT: NORMAL, ROLE_SPECIAL: CONTROL, ROLE_ADDED: USER}
    merges = [f"{found.pieces[a]} {found.pieces[b]}" for a, b, _ in found.merges.tolist()]
    return [
        (KIND, "str", NAME),
        *write_lists(found.pieces, [types[role] for role in found.roles], vocab_size),
        *write_ends(found),
        *prefixed([("pre", "str", pre), ("merges", "[str]", merges)]),
    ]


def _spelled(found: Description) -> Description:
    """A tokenizer of single bytes as a byte-level one without merges, which gives the same ids."""
    from omnima.tokenizers.description import ROLE_BYTE, ROLE_TEXT
    from omnima.tokenizers.rank_file import byte_spelling

    spelling = byte_spelling()
    pieces, roles = list(found.pieces), list(found.roles)
    for i, role in enumerate(found.roles):
        if role == ROLE_BYTE:
            pieces[i], roles[i] = spelling[int(pieces[i][3:5], 16)], ROLE_TEXT
    return replace(found, kind="bpe", pieces=pieces, roles=roles, pattern="gpt2")
