"""The tokenizer in the metadata of a GGUF file, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.hub.gguf import marked_tokenizer
from omnima.hub.gguf.chat import read_templates, write_templates
from omnima.hub.gguf.token_lists import (
    CONTROL,
    NAMES,
    NORMAL,
    PREFIX,
    UNKNOWN,
    UNUSED,
    USER,
    named,
    pieces_and_types,
    texts,
)

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers import Tokenizer
    from omnima.tokenizers.description import Description

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
    kind = metadata.get(f"{PREFIX}model")
    if kind is None or kind == "no_vocab":
        return None
    if kind == "llama":
        from omnima.tokenizers.tokenizer import built

        found = marked_tokenizer.read(metadata, where)
        return built(found, where, read_templates(metadata, where))
    if kind != "gpt2":
        raise DataError(
            f"{where}: a tokenizer of the kind {kind!r} ({PREFIX}model) is not supported; Omnima "
            "reads byte-level BPE ('gpt2') and BPE by scores ('llama')."
        )
    return _byte_level(metadata, where)


def _byte_level(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    from omnima import _core
    from omnima.tokenizers.description import (
        ROLE_ADDED,
        ROLE_SPECIAL,
        ROLE_TEXT,
        Description,
        own_padding,
    )
    from omnima.tokenizers.tokenizer import built

    pieces, kinds = pieces_and_types(metadata, where)
    pre = metadata.get(f"{PREFIX}pre", "gpt-2")
    if not isinstance(pre, str) or pre not in _PRE:
        raise DataError(
            f"{where}: text is to be cut as by {pre!r} ({PREFIX}pre), which Omnima does not have; "
            f"it knows {', '.join(_PRE)}."
        )
    roles = {UNKNOWN: ROLE_SPECIAL, CONTROL: ROLE_SPECIAL, USER: ROLE_ADDED}
    lines = texts(metadata, "merges", where)
    try:
        merges = _core.merges_of_lines(pieces, lines)
    except DataError as error:
        raise DataError(f"{where}: {error}.") from None
    bos, eos, pad = (named(metadata, name, len(pieces), where) for name in NAMES)
    pattern, whole = _PRE[pre]
    return built(
        Description(
            kind="bpe",
            pieces=pieces,
            roles=[roles.get(kind, ROLE_TEXT) for kind in kinds],
            merges=merges,
            scores=(),
            bos=bos,
            eos=eos,
            pad=own_padding(pad, eos),
            pattern=pattern,
            whole_first=whole,
            adds_bos=bool(metadata.get(f"{PREFIX}add_bos_token", False)) and bos is not None,
            adds_eos=bool(metadata.get(f"{PREFIX}add_eos_token", False)) and eos is not None,
        ),
        where,
        read_templates(metadata, where),
    )


def write_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> list[Pair]:
    """The keys of a tokenizer, filled up to the rows of the model's embedding.

    Raises
    ------
    ConfigError
        For a kind that llama.cpp would cut differently.
    """
    from omnima.tokenizers.description import ROLE_ADDED, ROLE_SPECIAL, ROLE_TEXT

    found = tokenizer.description
    if found.marking is not None or marked_tokenizer.takes_text_as_it_is(found):
        marked = marked_tokenizer.write(found, vocab_size)
        return marked + write_templates(tokenizer.chat_template)
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
    kinds = {ROLE_TEXT: NORMAL, ROLE_SPECIAL: CONTROL, ROLE_ADDED: USER}
    spare = vocab_size - len(found.pieces)
    pieces = [*found.pieces, *(f"[PAD{len(found.pieces) + i}]" for i in range(spare))]
    pairs: list[Pair] = [
        ("model", "str", "gpt2"),
        ("pre", "str", pre),
        ("tokens", "[str]", pieces),
        ("token_type", "[i32]", [*(kinds[role] for role in found.roles), *[UNUSED] * spare]),
        (
            "merges",
            "[str]",
            [f"{found.pieces[a]} {found.pieces[b]}" for a, b, _ in found.merges.tolist()],
        ),
        ("add_bos_token", "bool", found.adds_bos),
        ("add_eos_token", "bool", found.adds_eos),
    ]
    for name, number in zip(NAMES, (found.bos, found.eos, found.pad), strict=True):
        if number is not None:
            pairs.append((f"{name}_token_id", "u32", number))
    found_pairs = [(PREFIX + name, kind, value) for name, kind, value in pairs]
    return found_pairs + write_templates(tokenizer.chat_template)


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
