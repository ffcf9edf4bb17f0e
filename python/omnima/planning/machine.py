"""A machine as predictions see it: this one, or another one from a small YAML file."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnima._machine import cpu_model, free_memory
from omnima.errors import ConfigError

# What a process holds before there is a model; measured where the machine is this one.
_RUNTIME_BYTES = 350 << 20
_NUMBERS = ("fp32_gflops", "bf16_gflops", "bandwidth_gb_per_s", "memory_gb")
_MEANINGS = {
    "name": "what to call it",
    "device": "cpu or cuda",
    "threads": "threads that train (cores)",
    "level": "instruction set of the kernels, as `omnima doctor` names it",
    "fp32_gflops": "rate of float32 matrix products",
    "bf16_gflops": "rate of bfloat16 matrix products",
    "bandwidth_gb_per_s": "rate of reading memory",
    "memory_gb": "memory that a run may use",
    "price_per_hour": "in any currency",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates, memory and price.

    Parameters
    ----------
    name, device, threads, level
        What runs: "cpu" or "cuda", so many threads, kernels of this level.
    memory_bytes
        What a run may use.
    rates
        GFLOP/s of matrix products by precision; empty for this machine until they are measured.
    bandwidth
        GB/s of reading memory.
    price_per_hour
        None: no cost is told.
    runtime_bytes
        What a process holds before there is a model.
    """

    name: str
    threads: int
    memory_bytes: int
    device: str = "cpu"
    level: str = "avx512bf16"
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    bandwidth: float = 0.0
    price_per_hour: float | None = None
    runtime_bytes: int = _RUNTIME_BYTES


def read_machine(path: str | Path) -> Machine:
    """Read a machine's description.

    Raises
    ------
    ConfigError
        The file cannot be read, has an unknown key, lacks one or holds a value that makes no sense.

    Examples
    --------
    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "box.yaml"
    >>> _ = path.write_text("threads: 8\\nfp32_gflops: 500\\nbf16_gflops: 900\\n"
    ...                     "bandwidth_gb_per_s: 40\\nmemory_gb: 32\\nprice_per_hour: 0.4\\n")
    >>> read_machine(path).rates["bf16"]
    900.0
    """
    import yaml

    place = Path(path)
    try:
        values = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The machine {place} cannot be read: {_one_line(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The machine {place} must be a mapping of keys to values, one a line.")
    known = ", ".join(_MEANINGS)
    for key in values:
        if key not in _MEANINGS:
            raise ConfigError(f'Unknown key "{key}" in the machine {place}; the keys are {known}.')
    numbers = {key: _number(values, key, place) for key in _NUMBERS}
    threads = _number(values, "threads", place)
    if threads != int(threads):
        raise ConfigError(f"{place}: threads is {threads}, but a whole number is expected.")
    price = None if values.get("price_per_hour") is None else _price(values, place)
    device = str(values.get("device", "cpu"))
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"{place}: device is {device!r}, but must be cpu or cuda.")
    return Machine(
        name=str(values.get("name", place.stem)),
        threads=int(threads),
        memory_bytes=int(numbers["memory_gb"] * 1e9),
        device=device,
        level=str(values.get("level", "avx512bf16")),
        rates={"fp32": numbers["fp32_gflops"], "bf16": numbers["bf16_gflops"]},
        bandwidth=numbers["bandwidth_gb_per_s"],
        price_per_hour=price,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _number(values: dict[str, Any], key: str, place: Path) -> float:
    value = values.get(key)
    sound = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = float(value) if sound and value is not None else math.nan
    if not (number > 0 and math.isfinite(number)):
        raise ConfigError(
            f"{place}: {key} is {value!r}, but a number above 0 is expected ({_MEANINGS[key]})."
        )
    return number


def _price(values: dict[str, Any], place: Path) -> float:
    if values["price_per_hour"] == 0:
        return 0.0
    return _number(values, "price_per_hour", place)


def this_machine(held_bytes: int = 0, device: str = "cpu") -> Machine:
    """Return the machine that this process runs on.

    Parameters
    ----------
    held_bytes
        Of this process's memory, what belongs to a model that is already there; the rest is the
        runtime's.
    device
        "cpu", or a GPU such as "cuda" or "cuda:1", whose memory is then what counts.
    """
    import torch

    from omnima import _core
    from omnima.profiling.memory import resident_memory

    if device != "cpu":
        free = torch.cuda.mem_get_info(device)[0]
        name = torch.cuda.get_device_name(device)
        threads = torch.get_num_threads()
        return Machine(name, threads, held_bytes + free, device="cuda", runtime_bytes=0)
    _take_a_small_step()
    runtime = max(0, resident_memory() - held_bytes) or _RUNTIME_BYTES
    return Machine(
        name=cpu_model(Path("/proc/cpuinfo")),
        threads=torch.get_num_threads(),
        memory_bytes=runtime + held_bytes + free_memory(),
        level=str(_core.cpu_level()),
        runtime_bytes=runtime,
    )


@lru_cache(maxsize=1)
def _take_a_small_step() -> None:
    """Load the code that a step runs, and start its threads: both are part of the runtime."""
    import torch

    from omnima import _core
    from omnima.config import ModelConfig

    model = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=16,
    )
    ids = torch.arange(64).view(4, 16)
    for precision in ("fp32", "bf16"):
        options = _core.StepOptions()
        options.precision = precision
        _core.TrainStep(_core.Decoder(model.core(), 0), options).run_batches([(ids, ids)])


def forget_peak(device: str = "cpu") -> None:
    """Count the peak of memory anew, where the system lets us."""
    from omnima.profiling import memory

    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        memory.forget_peak()


def peak_memory(device: str = "cpu") -> int:
    """Return the peak since it was forgotten: of the process, or of what a GPU's tensors took."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    from omnima.benchmarking.worker import peak_memory as peak_of_process

    return peak_of_process()
