"""Omnima: small language models, from raw text to a model that writes.

The public names load on first use, so that ``import omnima`` and ``omnima --help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from omnima._torch_guard import check_torch

__version__ = "0.1.0"

# Public name -> the module that defines it ("" where the name is the module itself).
_EXPORTS = {
    "ChatSession": "omnima.generation",
    "Model": "omnima.model",
    "ModelConfig": "omnima.config",
    "PRESETS": "omnima.config",
    "PromptCache": "omnima.generation",
    "Tokenizer": "omnima.tokenizers",
    "TrainConfig": "omnima.training",
    "Trainer": "omnima.training",
    "adapters": "",
    "benchmark": "omnima.benchmarking",
    "benchmarking": "",
    "config": "",
    "data": "",
    "demo": "",
    "doctor": "",
    "errors": "",
    "evaluation": "",
    "export": "omnima.exporting",
    "exporting": "",
    "finetune": "omnima.training.finetune",
    "generation": "",
    "hub": "",
    "inspect": "omnima.data.conversations",
    "notebook": "",
    "planning": "",
    "profile": "omnima.profiling",
    "profiling": "",
    "quantization": "",
    "serve": "omnima.server",
    "server": "",
    "tokenizers": "",
    "training": "",
    "verify": "omnima.exporting",
}

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    from omnima import errors as errors

check_torch(list(__path__))


def __getattr__(name: str) -> Any:
    if name == "_core":
        import torch  # noqa: F401  (the extension needs torch's libraries and types in place)

        return importlib.import_module("omnima._core")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'omnima' has no attribute {name!r}")
    module = importlib.import_module(_EXPORTS[name] or f"omnima.{name}")
    value = getattr(module, name) if _EXPORTS[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
