"""How much memory the keys and values of all texts may take, known before the first of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omnima._machine import free_memory, memory_of
from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima import _core
    from omnima.model import Model
    from omnima.server.jobs import EngineOptions

#: Tokens whose keys and values lie in one page.
PAGE_TOKENS = 32
# What stays free for all else: requests, answers, grammars, embeddings, the process beside.
_RESERVED_PART, _LEAST_RESERVED = 10, 256 << 20  # a tenth of the memory, and no less than this


def bytes_for_texts(model: Model, engine: _core.Engine, options: EngineOptions) -> int:
    """Return the bound on the bytes of keys and values: that of the options, or one for this
    machine.

    By default it is what `max_sequences` texts as long as the context take, with what is kept of
    prompts, and less where less is free once the weights have their place and a tenth of the memory
    is left for all else.

    Parameters
    ----------
    model, engine
        What is served, loaded, and what writes with it.
    options
        Whose `memory_bytes` is None by default.

    Returns
    -------
    int
        0: no bound, which only the options can ask for.

    Raises
    ------
    ConfigError
        Not even one page is free.
    """
    if options.memory_bytes is not None:
        return options.memory_bytes
    page = int(engine.page_bytes(options.cache_precision))
    total, free = _memory_for(model)
    room = free - max(total // _RESERVED_PART, _LEAST_RESERVED)
    if room < page:
        raise ConfigError(
            f"The model is loaded, and {said(max(0, free))} of {said(total)} of memory on "
            f"{model.device} are left: too little for texts beside a reserve. Take a smaller or a "
            "quantized model, or say --memory-mb (memory_bytes) where you know better."
        )
    text = -(-int(model.config.max_position_embeddings) // PAGE_TOKENS) * page
    kept = options.kept_bytes if model.device == "cpu" else 0
    return min(options.max_sequences * text + kept, room)


def _memory_for(model: Model) -> tuple[int, int]:
    """Bytes of memory where the model writes: all, and those that are free beside its weights."""
    if model.device != "cpu":
        import torch

        free, total = torch.cuda.mem_get_info(model.device)
        return total, free
    total = memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))["total_bytes"]
    return total, free_memory() - model.bytes_to_come


def said(count: float) -> str:
    """Write a number of bytes for people.

    >>> said(1_300_000_000), said(84_000_000)
    ('1.3 GB', '84 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
