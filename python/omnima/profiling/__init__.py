"""Where the time and memory of a training step or a written token go, against what the machine can
do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnima.profiling.generation import profile_generation
    from omnima.profiling.operators import operator_rows
    from omnima.profiling.record import profile
    from omnima.profiling.tables import markdown
    from omnima.profiling.trace import write_trace

_HOMES = {
    "markdown": "tables",
    "operator_rows": "operators",
    "profile": "record",
    "profile_generation": "generation",
    "write_trace": "trace",
}
__all__ = ["markdown", "operator_rows", "profile", "profile_generation", "write_trace"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"omnima.profiling.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'omnima.profiling' has no attribute {name!r}")
