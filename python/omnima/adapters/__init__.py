"""Adapters: a few parameters beside a model whose own weights rest, as PEFT's directories."""

from omnima.adapters.options import METHODS, AdapterOptions
from omnima.adapters.peft_files import read_adapter, write_adapter
from omnima.adapters.sites import Module, chosen, linear_modules, usual_targets

__all__ = [
    "METHODS",
    "AdapterOptions",
    "Module",
    "chosen",
    "linear_modules",
    "read_adapter",
    "usual_targets",
    "write_adapter",
]
