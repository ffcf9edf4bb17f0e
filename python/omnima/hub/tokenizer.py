"""The tokenizer of a model: that of a directory, of a GGUF file or of a name on the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omnima._places import TOKENIZER_FILES, find_tokenizer, is_gguf
from omnima.errors import DataError

if TYPE_CHECKING:
    from omnima.tokenizers import Tokenizer


def tokenizer_beside(folder: Path) -> Tokenizer | None:
    """The tokenizer in a model's directory; None where there is none that Omnima reads."""
    from omnima.tokenizers import Tokenizer

    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return Tokenizer.from_pretrained(folder)
    return None


def open_tokenizer(given: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a directory, a GGUF file or a name on the hub.

    Raises
    ------
    DataError
        It has none, or one that Omnima does not read.
    ConfigError, OmnimaError
        There is no such place, or the hub cannot be reached.
    """
    from omnima.tokenizers import Tokenizer

    path = find_tokenizer(given)
    if not is_gguf(path):
        return Tokenizer.from_pretrained(path)
    from omnima import _core
    from omnima.hub.gguf.tokenizer import read_tokenizer

    found = read_tokenizer(_core.GgufFile(path).metadata(lists=False), str(given))
    if found is None:
        raise DataError(f"{given} holds no tokenizer.")
    return found
