"""How long an update takes: the job's own optimizer, with its state where it will lie."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from omnima._device import check_offload
from omnima.errors import ConfigError, NonFiniteError
from omnima.planning.core_facts import PACKED_PARAMETERS
from omnima.planning.job import stand_in
from omnima.planning.memory import offloaded_bytes

if TYPE_CHECKING:
    from omnima.config import ModelConfig
    from omnima.planning.job import Job

_ENOUGH = 0.5  # seconds of updates after which a median is known well enough
_LEAST, _MOST = 3, 15  # updates behind the first, which makes the state
# Of a stand-in: 29M parameters, more than caches hold.
_FLAT = {"vocab_size": 16384, "hidden_size": 1024, "num_hidden_layers": 1}
_SMALL_VOCABULARY = 1024


def require_room(job: Job, device: str) -> None:
    """Refuse a directory that is none, cannot be written or is too full for the state.

    Raises
    ------
    ConfigError
        Says which, and what to do.
    """
    check_offload(job.offload, device)
    if job.offload in (None, "cpu"):
        return
    free, needed = shutil.disk_usage(str(job.offload)).free, offloaded_bytes(job, device)
    if free < needed:
        raise ConfigError(
            f"offload_optimizer is {job.offload!r}, where {free >> 20:,} MiB are free, but the "
            f"optimizer's state takes {needed >> 20:,} MiB: make room, or name a directory of "
            "another disk."
        )


def update_seconds(job: Job, decoder: Any = None) -> float:
    """Measure norm and update of a job on the CPU.

    Up to 32M parameters the update is that of the model. Of a larger one it is that of 29M
    parameters, times their ratio: it takes as long for each. Muon turns matrices of the blocks
    into near-orthogonal ones and is measured on one block. A state in files lies in a scratch file
    of the job's directory, 256 MB at most but for Muon, which has no name and is gone afterwards,
    however this ends.

    Parameters
    ----------
    job
        The model, its optimizer and where the state lies.
    decoder
        The job's own `_core.Decoder` where there is one; its weights stay as they are.

    Raises
    ------
    ConfigError
        The directory cannot take the scratch file.
    """
    model, count = job.model, int(job.model.num_parameters)
    if job.trained is not None:
        # Muon's matrices of an adapter are thin: they cost next to nothing.
        kind = "adamw" if job.optimizer == "muon" else job.optimizer
        return job.trained * _seconds_a_parameter(job, kind)
    if count <= PACKED_PARAMETERS:
        return _measured(job, model, job.optimizer, decoder)
    if job.optimizer != "muon":
        return count * _seconds_a_parameter(job, job.optimizer)
    block = stand_in(model, num_hidden_layers=1, vocab_size=_SMALL_VOCABULARY)
    in_blocks = model.num_hidden_layers * block.num_parameters
    rest = max(0, count - in_blocks) * _seconds_a_parameter(job, "adamw")
    return float(model.num_hidden_layers * _measured(job, block, "muon") + rest)


def _seconds_a_parameter(job: Job, optimizer: str) -> float:
    from omnima.config import ModelConfig

    flat = ModelConfig(**_FLAT, num_attention_heads=16, max_position_embeddings=16)
    return _measured(job, flat, optimizer) / int(flat.num_parameters)


def _measured(job: Job, model: ModelConfig, optimizer: str, decoder: Any = None) -> float:
    """Return the seconds of an update of a model, of the job's own where a decoder is given."""
    import torch

    from omnima import _core

    options = _core.StepOptions()
    options.precision, options.optimizer = job.precision, optimizer
    options.schedule = "constant"  # which suits every optimizer
    options.ema_decay = 0.999 if job.ema else 0.0
    options.offload_optimizer = job.offload or ""
    own = decoder is not None
    step = _core.TrainStep(decoder if own else _core.Decoder(model.core(), 0), options)
    if not own:  # the job's own has the gradient of a pass, and its weights may not change
        step.apply_gradient(torch.full((model.num_parameters,), 1e-3))
    try:
        first = float(step.time_update(1))
    except NonFiniteError:  # the run says it, with its batch: a plan needs finite weights alone
        if not own:
            raise
        return _measured(job, model, optimizer)
    repeats = min(_MOST, max(_LEAST, round(_ENOUGH / max(first, 1e-6))))
    return float(step.time_update(repeats))
