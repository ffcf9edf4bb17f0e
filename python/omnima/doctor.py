"""What this machine has: versions, CPU, memory, GPU, measured speed, and which presets fit."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima._machine import cpu_model, memory_of, usable_cores

if TYPE_CHECKING:
    from rich.console import RenderableType

# A preset fits when it needs at most this part of the free memory.
_USABLE = 0.8
# Rows of the batch for which the memory of training is estimated.
_ROWS = 8


def collect(measure: bool = True) -> dict[str, Any]:
    """Return the facts of this machine as nested plain values, fit for JSON.

    Parameters
    ----------
    measure
        Also time matrix products and a pass over memory; takes about two seconds.

    >>> sorted(collect(measure=False))
    ['cpu', 'gpu', 'memory', 'presets', 'speed', 'versions']
    """
    memory = _memory()
    return {
        "versions": _versions(),
        "cpu": _cpu(),
        "memory": memory,
        "gpu": _gpu(),
        "speed": _speed() if measure else None,
        "presets": _presets(memory["free_bytes"]),
    }


def _versions() -> dict[str, str]:
    import torch

    import omnima
    from omnima import _core

    return {
        "omnima": omnima.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "built_with_torch": str(_core.built_with_torch),
        "system": platform.platform(),
    }


def _cpu() -> dict[str, Any]:
    import torch

    from omnima import _core

    return {
        "model": cpu_model(Path("/proc/cpuinfo")),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "level": str(_core.cpu_level()),
        "features": [str(name) for name in _core.cpu_features()],
        "forced_level": os.environ.get("OMNIMA_CPU_ISA"),
    }


def _memory() -> dict[str, int]:
    return memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))


def _gpu() -> dict[str, Any] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    return {
        "name": facts.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": facts.total_memory,
        "capability": f"{facts.major}.{facts.minor}",
    }


def _speed() -> dict[str, float]:
    import torch

    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    left16, right16 = left.bfloat16(), right.bfloat16()
    # Larger than the caches of any CPU of today, so that the pass reads memory.
    block = torch.ones(96 * 1024 * 1024)
    products = 2.0 * size**3
    return {
        "float32_gflops": products / _best_seconds(lambda: left @ right) / 1e9,
        "bfloat16_gflops": products / _best_seconds(lambda: left16 @ right16) / 1e9,
        "read_gb_per_s": block.numel() * 4 / _best_seconds(block.sum) / 1e9,
    }


def _best_seconds(work: Callable[[], object], budget: float = 0.4) -> float:
    """Return the shortest of repeated runs within `budget` seconds, after one to warm up."""
    work()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def _presets(free_bytes: int) -> dict[str, dict[str, Any]]:
    from omnima.config import PRESETS, model_preset
    from omnima.planning import Job, generation_bytes, needed_bytes, this_machine

    machine = this_machine()
    table: dict[str, dict[str, Any]] = {}
    for name in PRESETS:
        config = model_preset(name, vocab_size=32768 if name != "gpt2" else 50257)
        job = Job(config, rows=_ROWS, context=config.max_position_embeddings)
        train, generate = needed_bytes(job, machine), generation_bytes(config)
        table[name] = {
            "parameters": config.num_parameters,
            "training_bytes": train,
            "generation_bytes": generate,
            "trains_here": train <= _USABLE * free_bytes,
            "generates_here": generate <= _USABLE * free_bytes,
        }
    return table


def render(facts: dict[str, Any]) -> str:
    """Return the facts as tables for a terminal.

    >>> "torch" in render(collect(measure=False))
    True
    """
    from rich.console import Console, Group
    from rich.table import Table

    parts: list[RenderableType] = []
    about = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    versions, cpu, memory, gpu = (facts[key] for key in ("versions", "cpu", "memory", "gpu"))
    built = f"built with torch {versions['built_with_torch']}"
    about.add_row("omnima", f"{versions['omnima']} ({built})")
    about.add_row("python, torch", f"{versions['python']}, {versions['torch']}")
    about.add_row("system", versions["system"])
    about.add_row("CPU", f"{cpu['model']}, {cpu['usable_cores']} of {cpu['cores']} cores")
    about.add_row("kernels", f"{cpu['level']} ({', '.join(cpu['features'])})")
    about.add_row("threads", str(cpu["threads"]))
    about.add_row(
        "memory", f"{_size(memory['total_bytes'])}, {_size(memory['free_bytes'])} of it free"
    )
    about.add_row("GPU", f"{gpu['name']}, {_size(gpu['memory_bytes'])}" if gpu else "none")
    speed = facts["speed"]
    if speed:
        about.add_row(
            "products",
            f"{speed['float32_gflops']:.0f} GFLOP/s in float32, "
            f"{speed['bfloat16_gflops']:.0f} in bfloat16",
        )
        about.add_row("memory read", f"{speed['read_gb_per_s']:.1f} GB/s")
    parts.append(about)

    presets = Table(title="presets here (estimates)", title_justify="left")
    for heading in ("preset", "parameters", f"to train ({_ROWS} rows)", "to write", "verdict"):
        presets.add_column(heading, justify="left" if heading in ("preset", "verdict") else "right")
    for name, row in facts["presets"].items():
        presets.add_row(
            name,
            f"{row['parameters'] / 1e6:.2f}M",
            _size(row["training_bytes"]),
            _size(row["generation_bytes"]),
            _verdict(row),
        )
    parts.append(presets)

    console = Console(width=100, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get()


def _verdict(row: dict[str, Any]) -> str:
    if row["trains_here"]:
        return "trains"
    return "writes" if row["generates_here"] else "too large"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
