"""What this machine can do: the measured rate of matrix products and of reading memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnima._machine import threads_in_use

_SIZE = 2048
_BLOCK = 256 << 20  # bytes: larger than the caches


def measure_limits(threads: int, seconds: float = 0.5) -> dict[str, float]:
    """Measure what bounds a step here, with so many threads.

    Returns
    -------
    dict
        `fp32_gflops` and `bf16_gflops`: torch.mm of two 2048 x 2048 matrices; `read_gb_per_s`: a
        pass over 256 MiB. Medians of about `seconds` each.

    Examples
    --------
    >>> sorted(measure_limits(1, seconds=0.01))
    ['bf16_gflops', 'fp32_gflops', 'read_gb_per_s']
    """
    with threads_in_use(threads):
        return _rates(seconds)


def measure_reading(threads: int, sizes: Sequence[int], seconds: float = 0.5) -> list[float]:
    """Measure how fast blocks of so many bytes are read over and over: caches hold small ones.

    Returns
    -------
    list of float
        GB/s of each, medians of about `seconds`; equal sizes are measured once.

    Examples
    --------
    >>> len(measure_reading(1, [4096, 1 << 20], seconds=0.01))
    2
    """
    import torch

    found = {}
    with threads_in_use(threads):
        for size in dict.fromkeys(sizes):
            block = torch.ones(max(1, size // 4))
            found[size] = size / _median_seconds(block.sum, seconds) / 1e9
    return [found[size] for size in sizes]


def _rates(seconds: float) -> dict[str, float]:
    import torch

    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(_SIZE, _SIZE).to(dtype) for _ in range(2))
        out = torch.empty_like(left)

        def product(a: Any = left, b: Any = right, c: Any = out) -> None:
            torch.mm(a, b, out=c)

        rates[f"{name}_gflops"] = 2.0 * _SIZE**3 / _median_seconds(product, seconds) / 1e9
    block = torch.ones(_BLOCK // 4)
    rates["read_gb_per_s"] = _BLOCK / _median_seconds(block.sum, seconds) / 1e9
    return rates


def _median_seconds(work: Callable[[], object], budget: float) -> float:
    work()
    taken: list[float] = []
    while sum(taken) < budget or len(taken) < 3:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def better_of(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Return the higher rates of two measurements: other work on the machine only lowers them."""
    return {name: max(first[name], second[name]) for name in first}


def describe_machine(threads: int, limits: dict[str, float]) -> dict[str, Any]:
    """Return what must stand beside every figure: processor, threads, versions, measured rates."""
    import torch

    import omnima
    from omnima import _core
    from omnima._machine import cpu_model, memory_of, usable_cores

    return {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "cores": usable_cores(),
        "threads": threads,
        "memory_bytes": memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))["total_bytes"],
        "level": str(_core.cpu_level()),
        "forced_level": os.environ.get("OMNIMA_CPU_ISA"),
        "omnima": omnima.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
        **{name: round(value, 1) for name, value in limits.items()},
    }
