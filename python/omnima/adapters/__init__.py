"""Adapters: a few parameters beside a model whose own weights rest, as PEFT's directories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.adapters.options import METHODS, AdapterOptions

if TYPE_CHECKING:
    from omnima.adapters.peft_files import of_reward_model, read_adapter, write_adapter
    from omnima.adapters.sites import Module, chosen, linear_modules, usual_targets

__all__ = [
    "METHODS",
    "AdapterOptions",
    "Module",
    "chosen",
    "linear_modules",
    "of_reward_model",
    "read_adapter",
    "usual_targets",
    "write_adapter",
]


def __getattr__(name: str) -> Any:
    # What knows the layouts of files needs torch: loaded when first asked for.
    if name in __all__:
        from omnima.adapters import peft_files, sites

        return getattr(peft_files if hasattr(peft_files, name) else sites, name)
    raise AttributeError(f"module 'omnima.adapters' has no attribute {name!r}")
