"""What a run takes of the machine: processor, memory and, where there is one, the GPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/statm")
_MEMORY = Path("/proc/meminfo")


class ResourceMonitor:
    """Reads the machine now and then.

    Parameters
    ----------
    every
        Seconds between two readings; 0: never.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._clock = time.monotonic()
        self._worked = time.process_time()
        self._last: float | None = None
        self._gpu = _gpu_reader() if every else None

    def read(self) -> dict[str, Any]:
        """Return the readings by name, or nothing when the last ones are fresh.

        `cpu_percent` counts this process since the last reading, 100 for each processor at work;
        `memory_bytes` is what it holds, `memory_free_bytes` what the machine has left.
        """
        now = time.monotonic()
        if not self._every or (self._last is not None and now - self._last < self._every):
            return {}
        self._last = now
        worked = time.process_time()
        passed = max(now - self._clock, 1e-6)
        facts: dict[str, Any] = {"cpu_percent": round(100 * (worked - self._worked) / passed, 1)}
        self._clock, self._worked = now, worked
        facts.update(_memory())
        if self._gpu is not None:
            facts.update(self._gpu())
        return facts


def _memory() -> dict[str, int]:
    facts = {}
    if _STATUS.exists():
        pages = int(_STATUS.read_text(encoding="ascii").split()[1])
        facts["memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
    if _MEMORY.exists():
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                facts["memory_free_bytes"] = int(line.split()[1]) * 1024
    return facts


def _gpu_reader() -> Any:
    import torch

    if not torch.cuda.is_available():
        return None

    def read() -> dict[str, Any]:
        free, total = torch.cuda.mem_get_info()
        facts: dict[str, Any] = {
            "gpu_memory_bytes": total - free,
            "gpu_memory_peak_bytes": torch.cuda.max_memory_reserved(),
        }
        try:
            facts["gpu_percent"] = torch.cuda.utilization()
        except (ImportError, RuntimeError):
            pass  # needs a package of the maker's that torch does not bring
        return facts

    return read
