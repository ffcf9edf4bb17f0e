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


def memory_of(meminfo: Path, cgroup: Path, own: Path = Path("/proc/self/cgroup")) -> dict[str, int]:
    """Return total and free bytes, bounded by the limits of the container where it has some.

    Parameters
    ----------
    meminfo
        The system's figures, as of Linux.
    cgroup
        Where the control groups are mounted, of version 2 or 1.
    own
        Names the groups of this process. One of them, or one around it, may have the limit.
    """
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
    for group in _groups(cgroup, own):
        for names in _LIMITS:
            bound, left = _limit_of(group, *names) or (total, free)
            total, free = min(total, bound), min(free, left)
    return {"total_bytes": total, "free_bytes": free}


# Of versions 2 and 1: limit, what is used of it, and of this what lies in files, too.
_FILES = ("inactive_file", "active_file")
_LIMITS = (
    ("memory.max", "memory.current", _FILES),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", tuple(f"total_{each}" for each in _FILES)),
)


def _groups(cgroup: Path, own: Path) -> Iterator[Path]:
    """Where limits of memory that hold for this process may stand.

    In a container the mount is often the process's own group, under whatever name it has outside.
    """
    yield from (cgroup, cgroup / "memory")
    for line in own.read_text(encoding="utf-8").splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if ".." in path or controllers not in ("", "memory"):
            continue
        group = cgroup / controllers
        for part in path.strip("/").split("/"):
            group = group / part
            yield group


def _limit_of(
    group: Path, limit: str, used: str, of_files: tuple[str, ...]
) -> tuple[int, int] | None:
    """The limit of a group and what is free of it, in bytes; None: it has none.

    What lies in files, too, makes place for what does not: it counts as free, as the system does.
    """
    try:
        bound = (group / limit).read_text().strip()
        if bound == "max":
            return None
        held = int((group / used).read_text())
        stat = group / "memory.stat"
        lines = stat.read_text().splitlines() if stat.is_file() else []
    except OSError:  # there is no such group, or it may not be read
        return None
    pairs = (line.split() for line in lines)
    held -= sum(int(each[1]) for each in pairs if len(each) == 2 and each[0] in of_files)
    return int(bound), max(0, int(bound) - max(0, held))


def free_memory(status: Path = Path("/proc/self/status")) -> int:
    """Return the bytes that this process may still take: free memory, within its own limits."""
    free = memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))["free_bytes"]
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return free
    used = _sizes(status)
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            free = min(free, max(0, soft - used.get(name, 0)))
    return free


def _sizes(status: Path) -> dict[str, int]:
    if not status.is_file():
        return {}
    pairs = (line.split() for line in status.read_text(encoding="utf-8").splitlines())
    return {each[0].rstrip(":"): int(each[1]) * 1024 for each in pairs if each[-1] == "kB"}
