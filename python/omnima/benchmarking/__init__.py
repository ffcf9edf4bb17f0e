"""Omnima beside its peers on this machine: training, evaluation, tokenization and writing, each
system in a process of its own, and a gate that compares ratios.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnima.benchmarking.adapters import benchmark_adapter
    from omnima.benchmarking.bench import benchmark
    from omnima.benchmarking.gate import check_gate, read_gate
    from omnima.benchmarking.generation import benchmark_generation
    from omnima.benchmarking.limits import measure_limits
    from omnima.benchmarking.quantizing import benchmark_quantize
    from omnima.benchmarking.shapes import SHAPES, Shape, shape_of
    from omnima.benchmarking.tables import markdown

_HOMES = {
    "SHAPES": "shapes",
    "Shape": "shapes",
    "benchmark": "bench",
    "benchmark_adapter": "adapters",
    "benchmark_generation": "generation",
    "benchmark_quantize": "quantizing",
    "check_gate": "gate",
    "markdown": "tables",
    "measure_limits": "limits",
    "read_gate": "gate",
    "shape_of": "shapes",
}
__all__ = [
    "SHAPES",
    "Shape",
    "benchmark",
    "benchmark_adapter",
    "benchmark_generation",
    "benchmark_quantize",
    "check_gate",
    "markdown",
    "measure_limits",
    "read_gate",
    "shape_of",
]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: the processes of peers must not carry our code and memory.
    if name in _HOMES:
        return getattr(importlib.import_module(f"omnima.benchmarking.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'omnima.benchmarking' has no attribute {name!r}")
