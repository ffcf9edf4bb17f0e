"""The formats of weights that are measured, and what each system has of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnima.errors import ConfigError

#: What each system calls a format, and the copy of the model it computes from.
COPIES: dict[str, dict[str, str]] = {
    "transformers": {"f32": "hf", "bf16": "hf"},
    "llama.cpp": {
        "f32": "gguf-f32",
        "bf16": "gguf-bf16",
        "int8": "gguf-q8_0",
        "int4": "gguf-q4_0",
    },
    "ctranslate2": {"f32": "ct2-float32", "bf16": "ct2-bfloat16", "int8": "ct2-int8"},
}
FORMATS = ("f32", "bf16", "int8", "int4")
#: Those that our own engine computes from.
OURS = ("f32",)


def check_formats(given: str | Sequence[str]) -> list[str]:
    """Return the formats that are asked for.

    Raises
    ------
    ConfigError
        An unknown one, or one that our engine does not have.
    """
    names = given.split(",") if isinstance(given, str) else list(given)
    names = list(dict.fromkeys(name.strip() for name in names))
    for name in names:
        if name not in FORMATS:
            raise ConfigError(
                f'Unknown format "{name}"; the formats are {", ".join(FORMATS)}, or several with '
                "commas."
            )
        if name not in OURS:
            raise ConfigError(
                f"The engine does not write from weights in {name}; what there is: "
                f"{', '.join(OURS)}."
            )
    return names


def copy_of(system: str, format: str) -> str | None:
    """Return which copy of the model a peer computes from, None where it has no such format."""
    return COPIES[system].get(format)


def open_in(path: str, format: str) -> tuple[Any, int]:
    """Return a model whose weights are in a format, and the bytes of these."""
    from omnima.model import Model

    model = Model.from_pretrained(path)
    size = sum(each.numel() * each.element_size() for _, each in model.named_parameters())
    return model, size
