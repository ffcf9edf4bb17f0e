"""Chat templates in the metadata of a GGUF file, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.tokenizers.chat_files import DEFAULT, Templates, named

if TYPE_CHECKING:
    from omnima.hub.gguf.metadata import Pair

_KEY, _NAMES = "tokenizer.chat_template", "tokenizer.chat_templates"


def read_templates(metadata: Mapping[str, Any], where: str) -> Templates:
    """The templates of a file: the default one, then those with a name."""
    keys = {DEFAULT: _KEY} if _KEY in metadata else {}
    prefix = f"{_KEY}."
    keys |= {key.removeprefix(prefix): key for key in sorted(metadata) if key.startswith(prefix)}
    return {name: named(name, metadata[key], f"{where}, {key}") for name, key in keys.items()}


def write_templates(templates: str | Mapping[str, str] | None) -> list[Pair]:
    """The keys of templates; names keep their letters and digits, as in the gguf package.

    Raises
    ------
    ConfigError
        For two names that become one.
    """
    if templates is None:
        return []
    texts = {DEFAULT: templates} if isinstance(templates, str) else dict(templates)
    default = texts.pop(DEFAULT, None)
    others: dict[str, str] = {}
    for name, text in texts.items():
        key = re.sub(r"[^A-Za-z0-9]", "_", name)
        if key in others:
            raise ConfigError(
                f"two chat templates would be named {key!r} in a GGUF file, which keeps letters and"
                " digits only: rename one in tokenizer.chat_template"
            )
        others[key] = text
    pairs: list[Pair] = [(f"{_KEY}.{name}", "str", text) for name, text in others.items()]
    if others:
        pairs.append((_NAMES, "[str]", list(others)))
    return pairs if default is None else [*pairs, (_KEY, "str", default)]
