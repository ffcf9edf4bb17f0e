"""When memory runs out in a step: smaller micro-batches, more of them, the same global batch."""

from __future__ import annotations

import dataclasses

from omnima.errors import OmnimaError
from omnima.training.config import TrainConfig

_SIGNS = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def divided(config: TrainConfig) -> tuple[TrainConfig, int]:
    """Return the config with its micro-batch halved, or divided by its smallest factor if odd.

    Raises
    ------
    OmnimaError
        The micro-batch is one row already.

    Examples
    --------
    >>> smaller, times = divided(TrainConfig(steps=1, batch_size=6, accumulate=2))
    >>> smaller.batch_size, smaller.accumulate, times
    (3, 4, 2)
    """
    rows = config.batch_size
    if rows == 1:
        raise OmnimaError(
            "The memory does not suffice for a micro-batch of one row; nothing was changed by this "
            "step. Take a shorter --context, a smaller model or --precision bf16: omnima plan says "
            "what fits."
        )
    times = next(factor for factor in range(2, rows + 1) if rows % factor == 0)
    smaller = dataclasses.replace(
        config, batch_size=rows // times, accumulate=config.accumulate * times
    )
    return smaller, times
