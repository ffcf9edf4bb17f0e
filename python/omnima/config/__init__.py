"""Model configurations: checked fields, named presets, and sizes from a parameter count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.config.presets import PRESETS

if TYPE_CHECKING:
    from omnima.config.model import ModelConfig, config_for_parameters, model_preset

__all__ = ["PRESETS", "ModelConfig", "config_for_parameters", "model_preset"]


def __getattr__(name: str) -> Any:
    # The fields come from the C++ core, which needs torch: loaded when first asked for.
    if name in __all__:
        from omnima.config import model

        return getattr(model, name)
    raise AttributeError(f"module 'omnima.config' has no attribute {name!r}")
