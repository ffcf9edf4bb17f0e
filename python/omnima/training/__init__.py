"""Training: `Trainer(model, tokenizer, data, config).fit()` gives a `Run`. Imported piece by
piece.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from omnima.training.config import TrainConfig

if TYPE_CHECKING:
    from omnima.training.recipe import Recipe
    from omnima.training.run import Run
    from omnima.training.trainer import Trainer

__all__ = ["Recipe", "Run", "TrainConfig", "Trainer"]

_HOMES = {"Recipe": "recipe", "Run": "run", "Trainer": "trainer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
