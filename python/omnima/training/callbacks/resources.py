"""What a run takes of the machine: processor, memory and, where there is one, the GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
    note
        Is told, once, what cannot be read and how it could be.
    """

    def __init__(self, every: float, note: Callable[[str], None] | None = None) -> None:
        self._every = every
        self._clock = time.monotonic()
        self._worked = time.process_time()
        self._last: float | None = None
        self._gpu = _gpu_reader(note) if every else None

    def read(self) -> dict[str, Any]:
        """Return the readings by name, or nothing when the last ones are fresh.

        `cpu_percent` counts this process since the last reading, 100 for each processor at work;
        `memory_bytes` is what it holds, `memory_free_bytes` what the machine has left. Of a GPU
        whose work cannot be read `gpu_percent` is None.
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


def _gpu_reader(note: Callable[[str], None] | None) -> Any:
    import torch

    if not torch.cuda.is_available():
        return None

    told = False

    def percent() -> int | None:
        nonlocal told
        try:
            return int(torch.cuda.utilization())
        except (ImportError, RuntimeError) as error:
            if note is not None and not told:
                told = True
                note(
                    f"How busy the GPU is cannot be read ({error}); gpu_percent is null in the "
                    "records. It needs a package of the GPU's maker: pip install nvidia-ml-py, or "
                    "amdsmi."
                )
            return None

    def read() -> dict[str, Any]:
        free, total = torch.cuda.mem_get_info()
        return {
            "gpu_memory_bytes": total - free,
            "gpu_memory_peak_bytes": torch.cuda.max_memory_reserved(),
            "gpu_percent": percent(),
        }

    return read
