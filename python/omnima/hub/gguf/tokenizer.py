"""The tokenizer in the metadata of a GGUF file, both ways: which kind it is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError
from omnima.hub.gguf import byte_level_tokenizer, marked_tokenizer
from omnima.hub.gguf.chat import read_templates, write_templates
from omnima.hub.gguf.token_lists import KIND

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair
    from omnima.tokenizers import Tokenizer
    from omnima.tokenizers.chat_files import Templates

_NONE = "no_vocab"


def begin_tokenizer(metadata: Mapping[str, Any], where: str) -> Callable[[], Tokenizer | None]:
    """Begin to read the tokenizer of a file's metadata, beside what the caller does.

    Returns
    -------
    callable
        Waits for the tokenizer; None where there is none. DataError for damaged lists.

    Raises
    ------
    DataError
        For a kind, or a way to cut text, that Omnima does not have, and for damaged lists.
    """
    from omnima.tokenizers.tokenizer import built

    kind = metadata.get(KIND)
    if kind is None or kind == _NONE:
        return lambda: None
    finish: Callable[[Templates], Tokenizer]
    if kind == byte_level_tokenizer.NAME:
        finish = byte_level_tokenizer.begin(metadata, where)
    elif kind == marked_tokenizer.NAME:
        finish = functools.partial(built, marked_tokenizer.read(metadata, where), where)
    else:
        raise DataError(
            f"{where}: a tokenizer of the kind {kind!r} ({KIND}) is not supported; Omnima "
            f"reads byte-level BPE ({byte_level_tokenizer.NAME!r}) and BPE by scores "
            f"({marked_tokenizer.NAME!r})."
        )
    return functools.partial(finish, read_templates(metadata, where))


def read_tokenizer(metadata: Mapping[str, Any], where: str) -> Tokenizer | None:
    """The tokenizer of a file's metadata; None where there is none. Raises as `begin_tokenizer`."""
    return begin_tokenizer(metadata, where)()


def write_tokenizer(tokenizer: Tokenizer | None, vocab_size: int) -> list[Pair]:
    """The keys of a tokenizer, or of none, filled up to the rows of the model's embedding.

    Raises
    ------
    ConfigError
        For a kind that llama.cpp would cut differently.
    """
    if tokenizer is None:
        return [(KIND, "str", _NONE)]
    found = tokenizer.description
    marked = found.marking is not None or marked_tokenizer.takes_text_as_it_is(found)
    write = marked_tokenizer.write if marked else byte_level_tokenizer.write
    return write(found, vocab_size) + write_templates(tokenizer.chat_template)
