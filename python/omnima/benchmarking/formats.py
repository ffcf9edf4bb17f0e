"""The formats of weights that are measured, and what each system has of them."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

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
#: How our own engine opens each: the copy of the model, where it takes one, and the dtype of
#: `Model.from_pretrained`. In 8 and 4 bits it computes from llama.cpp's very file.
OURS: dict[str, tuple[str | None, str]] = {
    "f32": (None, "float32"),
    "bf16": (None, "bfloat16"),
    "int8": ("gguf-q8_0", "auto"),
    "int4": ("gguf-q4_0", "auto"),
}


def copy_of(system: str, format: str) -> str | None:
    """Return which copy of the model a peer computes from, None where it has no such format."""
    return COPIES[system].get(format)


def open_in(
    path: str, format: str, copy: str | None = None, activations: str = "float32"
) -> tuple[Any, int]:
    """Return a model whose weights are in a format, and the bytes of these.

    `copy` is the copy of the model that the format takes; without one it is made for this call.
    """
    from omnima.model import Model

    kind, dtype = OURS[format]
    if kind is None:
        rounded = activations if format == activations else "float32"
        return _opened(Model.from_pretrained(path, dtype=dtype, activations=rounded), format)
    with tempfile.TemporaryDirectory(prefix="omnima-copy-") as place:
        if copy is None:
            copy = f"{place}/{kind}.gguf"
            Model.from_pretrained(path).save_gguf(copy, dtype=kind.removeprefix("gguf-"))
        # The file stays mapped when its name has gone.
        model = Model.from_pretrained(copy, dtype=dtype, activations=activations)
        return model, bytes_of(copy)


def _opened(model: Any, format: str) -> tuple[Any, int]:
    return model, (4 if format == "f32" else 2) * int(model.num_parameters)


def bytes_of(path: str) -> int:
    """Return the bytes of all tensors of a GGUF file."""
    from omnima import _core

    total = 0
    for _, kind, shape in _core.GgufFile(Path(path)).tensors():
        numbers, size = _core.block_of(kind.lower())
        total += math.prod(shape) // numbers * size
    return total
