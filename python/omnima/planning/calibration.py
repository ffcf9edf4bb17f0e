"""How long a step takes here: some passes of the real shape, or of stand-ins with fewer layers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.adapters import linear_modules
from omnima.planning.core_facts import PACKED_PARAMETERS, packs, slices_of
from omnima.planning.job import stand_in
from omnima.planning.memory import memory_by_part, state_bytes
from omnima.planning.update_time import require_room, update_seconds

if TYPE_CHECKING:
    import torch

    from omnima.planning.job import Job
    from omnima.planning.machine import Machine

# A micro-batch of so many operations is measured whole; of a longer one, a slice.
_WHOLE_FLOPS = 60e9
_ENOUGH = 0.4  # seconds of passes after which a median is known well enough
_LEAST, _MOST = 2, 9  # passes behind the first
_LONG = 2.0  # seconds of a warm-up and a pass behind which one more pass has to do
_RANK = 16  # of a stand-in's adapter
# Blocks between two stand-ins: from one to the next the noise of both would count for each block.
_APART = 3
_STREAM_BYTES = 32 << 20
# A sample of writing is so much of a checkpoint, within bounds.
_SHARE_OF_FILE, _LEAST_FILE, _MOST_FILE = 6, 8 << 20, 256 << 20
_SAVED_BYTES = 4  # of weights, beside the optimizer's state
# A larger model is not measured whole: making it would take too long.
_LARGE_PARAMETERS = 256 << 20
_QUICK_SECONDS = 2.0  # of a pass that is short enough to be measured whole


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Seconds of the pieces of a run on this machine.

    Parameters
    ----------
    pass_seconds
        Forward and backward of one micro-batch.
    fixed_seconds
        What a step takes beside its passes: gradients set to zero and added up, weights packed,
        norm and update.
    evaluate_seconds
        The loss of one micro-batch.
    save_bytes_per_s
        Writing and hashing a file.
    """

    pass_seconds: float
    fixed_seconds: float
    evaluate_seconds: float
    save_bytes_per_s: float

    def step_seconds(self, job: Job) -> float:
        """Return the seconds of one optimizer step."""
        return job.accumulate * self.pass_seconds + self.fixed_seconds


def calibrate(
    job: Job, machine: Machine, decoder: Any = None, directory: str | Path | None = None
) -> Calibration:
    """Measure a job on this machine, within some seconds.

    Parameters
    ----------
    job
        The model and its batches.
    machine
        This machine.
    decoder
        The job's own `_core.Decoder` where there is one; its weights stay as they are. Of a model
        whose passes take seconds, stand-ins with one block and with four are measured all the same.
    directory
        Where the rate of writing is measured; None: the system's place for temporary files.

    Raises
    ------
    ConfigError
        The optimizer's state is to lie in a directory that cannot take it.
    """
    require_room(job, machine.device)
    rate = _stream_bytes_per_s(machine.device)
    slices = slices_of(job, machine.threads, machine.device)
    unit = slices.rows * slices.workers
    micro_flops = job.flops_per_token() * job.rows * job.context
    rows = job.rows if micro_flops <= _WHOLE_FLOPS else min(unit, job.rows)
    depths = _depths(job, machine.device)
    if len(depths) > 1 and _is_quick(job, machine, rows):
        depths = [job.model.num_hidden_layers]
    whole_model = depths == [job.model.num_hidden_layers]
    if decoder is None and whole_model:
        decoder = _decoder(job, depths[0], machine.device)
    passes, evaluation = [], 0.0
    for depth in depths:
        own = decoder if whole_model else _decoder(job, depth, machine.device)
        taken, evaluation_taken = _measure(job, depth, rows, own)
        count = stand_in(job.model, num_hidden_layers=depth).num_parameters
        before = _pass_bytes(count, slices.workers, job, machine) / rate
        passes.append(max(0.1 * taken, taken - before))
        evaluation = evaluation or evaluation_taken / passes[0]
    one = passes[0]
    if len(depths) > 1:
        by_layer = max(0.0, passes[1] - passes[0]) / (depths[1] - depths[0])
        one += by_layer * (job.model.num_hidden_layers - depths[0])
    # Of the rows that workers share, the one with the most decides.
    shared = -(-job.rows // slices.workers) * slices.workers
    one *= shared / (-(-rows // slices.workers) * slices.workers)
    fixed = _pass_bytes(job.model.num_parameters, slices.workers, job, machine) / rate
    if machine.device == "cpu":
        fixed += update_seconds(job, decoder if whole_model else None)
    else:
        fixed += _update_bytes(job) / rate
    return Calibration(one, fixed, one * evaluation, _save_bytes_per_s(directory, saved_bytes(job)))


def _depths(job: Job, device: str = "cpu") -> list[int]:
    """Layers of the models to measure: the whole one, or two stand-ins that are cut as it is."""
    layers = job.model.num_hidden_layers
    # Stand-ins have numbers, no blocks: a model that is held in those is measured itself.
    if device != "cpu" or job.held is not None or packs(job.model.num_parameters):
        return [layers]
    for depth in range(1, layers - _APART):
        if stand_in(job.model, num_hidden_layers=depth).num_parameters > PACKED_PARAMETERS:
            return [depth, depth + _APART]
    return [layers]


def _is_quick(job: Job, machine: Machine, rows: int) -> bool:
    """Whether a large model can be measured as it is, which is more exact than stand-ins are.

    One with a single block tells about how long its passes take.
    """
    if job.model.num_parameters > _LARGE_PARAMETERS:
        return False
    if sum(memory_by_part(job, machine).values()) > machine.memory_bytes:
        return False
    short = dataclasses.replace(job, model=stand_in(job.model, num_hidden_layers=1))
    step, ids = _step(short, 1, rows, _decoder(short, 1, machine.device))
    taken = step.time_pass(ids, ids, 1)
    return bool(taken * job.flops_per_token() <= _QUICK_SECONDS * short.flops_per_token())


def _decoder(job: Job, depth: int, device: str) -> Any:
    from omnima import _core

    model = stand_in(job.model, num_hidden_layers=depth)
    decoder = _core.Decoder(model.core(), 0, device)
    if job.trained is not None:
        # The rank hardly changes what a pass costs.
        sites = [
            _core.AdapterSite(each.name, each.ordered, _RANK)
            for each in linear_modules(model.to_dict()).values()
        ]
        decoder.add_adapter("stand-in", sites, _core.AdapterOptions())
    return decoder


def _step(job: Job, depth: int, rows: int, decoder: Any) -> tuple[Any, torch.Tensor]:
    """Return a step for a stand-in of so many layers, and ids for so many rows."""
    import torch

    from omnima import _core

    options = _core.StepOptions()
    options.precision = job.precision
    # Of a stand-in's blocks as many compute twice as of the whole model's.
    options.checkpoint_layers = round(job.checkpoint_layers * depth / job.model.num_hidden_layers)
    # A fixed mixture of ids: one id all over would stay in the cache.
    ids = torch.arange(rows * job.context).mul(7919).remainder(job.model.vocab_size)
    return _core.TrainStep(decoder, options), ids.view(rows, job.context)


def _measure(job: Job, depth: int, rows: int, decoder: Any) -> tuple[float, float]:
    """Return the seconds of a pass with its preparation, and of an evaluation."""
    step, ids = _step(job, depth, rows, decoder)
    first = time.perf_counter()
    best = step.time_pass(ids, ids, 1)  # a warm-up and a pass
    spent = time.perf_counter() - first
    if spent < _ENOUGH:
        best = step.time_pass(ids, ids, max(_LEAST, min(_MOST, int(_ENOUGH / max(best, 1e-9)))))
    else:
        best = min(best, step.time_pass(ids, ids, _LEAST if spent < _LONG else 1))
    start = time.perf_counter()
    step.evaluate_batches([(ids, ids)])
    return best, time.perf_counter() - start


def _pass_bytes(count: int, workers: int, job: Job, machine: Machine) -> float:
    """Bytes moved before the first pass and after the last: zeros, sums, packed weights."""
    if job.trained is not None:  # the weights rest: they are packed once
        return 4.0 * (2 * workers + 1) * job.trained
    moved = 4.0 * workers * count
    if workers > 1:
        moved += 4.0 * (workers + 1) * count
    if packs(count, machine.device):
        moved += 4.0 * job.element * count  # read and written, for forward and for backward
    return moved


def _update_bytes(job: Job) -> float:
    """Bytes that norm and update move on a GPU: gradient, weight, state, bfloat16 copy."""
    state = 2.0 * state_bytes(job)
    numbers = 4.0 + 12.0 + (0.0 if job.precision == "fp32" else 2.0)
    return numbers * job.learning + state


def saved_bytes(job: Job) -> int:
    """Return the bytes of a checkpoint: weights and the optimizer's state."""
    return _SAVED_BYTES * job.learning + state_bytes(job)


def _stream_bytes_per_s(device: str = "cpu") -> float:
    """Return the rate at which this machine reads two arrays and writes a third."""
    import torch

    left, right = (torch.ones(_STREAM_BYTES // 4, device=device) for _ in range(2))
    out = torch.empty_like(left)
    torch.add(left, right, out=out)[0].item()
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        torch.add(left, right, out=out)[0].item()  # a GPU has finished when a number comes back
        best = min(best, time.perf_counter() - start)
    return 3 * _STREAM_BYTES / best


def _save_bytes_per_s(directory: str | Path | None, wanted: int) -> float:
    """Return the rate of writing and hashing: of a sample, which is larger for a large checkpoint.

    A disk takes a few megabytes faster than many.
    """
    megabytes = max(_LEAST_FILE, min(_MOST_FILE, wanted // _SHARE_OF_FILE)) >> 20
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=directory) as file:
        start = time.perf_counter()
        digest = hashlib.sha256()
        for _ in range(megabytes):
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
        return (megabytes << 20) / (time.perf_counter() - start)
