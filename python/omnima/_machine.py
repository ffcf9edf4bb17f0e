"""Processor and memory of this machine, as the system tells them, and how much of it is used."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def threads_in_use(threads: int) -> Iterator[None]:
    """Compute with so many threads, and afterwards with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_model(path: Path) -> str:
    """Return the processor's name, from Linux' cpuinfo where there is one."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def memory_of(meminfo: Path, cgroup: Path) -> dict[str, int]:
    """Return total and free bytes, bounded by the limit of the container where it has one."""
    total = free = 0
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                total = int(value.split()[0]) * 1024
            elif name == "MemAvailable":
                free = int(value.split()[0]) * 1024
    else:
        page = os.sysconf("SC_PAGE_SIZE")
        total = free = page * os.sysconf("SC_PHYS_PAGES")
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        bound = int(limit.read_text())
        total = min(total, bound)
        free = min(free, max(0, bound - int(used.read_text())))
    return {"total_bytes": total, "free_bytes": free}
