"""What a memory budget and a target batch leave to be chosen: recomputed blocks, rows, passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.planning import Job, Machine, advice, largest_rows, needed_bytes
from omnima.training.config import TrainConfig
from omnima.training.display import format_bytes

if TYPE_CHECKING:
    from omnima.training.rundir import RunDirectory

_PART = "memory_choice"
_CHOSEN = ("checkpoint_layers", "batch_size", "accumulate")


@dataclasses.dataclass(frozen=True)
class MemoryChoice:
    """What was chosen, and the estimate that it rests on.

    Parameters
    ----------
    checkpoint_layers, batch_size, accumulate
        The values that the run takes.
    context
        Tokens of a row.
    needed_bytes, allowed_bytes
        The estimate with these values, and what the run may take.
    """

    checkpoint_layers: int
    batch_size: int
    accumulate: int
    context: int
    needed_bytes: int
    allowed_bytes: int

    def apply(self, config: TrainConfig) -> TrainConfig:
        """Return the config with what was chosen in the place of what asked for a choice."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in _CHOSEN}
        return dataclasses.replace(config, **chosen, memory_budget=None, target_batch_tokens=None)

    def sentence(self) -> str:
        """Say the choice in a line."""
        tokens = self.batch_size * self.accumulate * self.context
        again = f"{self.checkpoint_layers} blocks compute twice"
        return (
            f"Chosen for {format_bytes(self.allowed_bytes)} of memory: {again}, {self.batch_size} "
            f"rows a micro-batch, {self.accumulate} of them a step ({tokens:,} tokens); about "
            f"{format_bytes(self.needed_bytes)} are needed."
        )


def choose(
    config: TrainConfig, job_of: Callable[[TrainConfig], Job], machine: Machine, rows_each: int = 1
) -> MemoryChoice | None:
    """Choose what a config leaves to be chosen; None where it leaves nothing.

    As few blocks as possible compute twice. Of a target batch the micro-batch is the largest that
    fits, and its rows are shared out evenly.

    Parameters
    ----------
    config
        With `memory_budget`, `target_batch_tokens` or both.
    job_of
        Turns a config without these two into what is planned.
    machine
        Where; the run may take its memory, or the budget where that is less.
    rows_each
        Rows of the job that one of `batch_size` takes: two of pairs of answers.

    Raises
    ------
    ConfigError
        Nothing fits; says what would.

    Examples
    --------
    >>> from omnima.config import model_preset
    >>> model = model_preset("nima", vocab_size=256)
    >>> wanted = TrainConfig(steps=1, target_batch_tokens=4096)
    >>> found = choose(
    ...     wanted,
    ...     lambda config: Job(model, config.batch_size, 64, config.accumulate),
    ...     Machine("box", threads=2, memory_bytes=8 << 30),
    ... )
    >>> found.batch_size, found.accumulate, found.checkpoint_layers
    (64, 1, 0)
    """
    target = config.target_batch_tokens
    if config.memory_budget is None and target is None:
        return None
    allowed = min(machine.memory_bytes, config.memory_bytes or machine.memory_bytes)
    limited = dataclasses.replace(machine, memory_bytes=allowed)
    plain = dataclasses.replace(config, memory_budget=None, target_batch_tokens=None, ramp_steps=0)
    job = job_of(plain)
    if target is None:
        job = _with_fewest_layers(job, limited)
    else:
        whole = max(1, round(target / (rows_each * job.context)))
        job = dataclasses.replace(job, rows=rows_each, accumulate=whole)
        job = _with_fewest_layers(job, limited)
        rows = largest_rows(job, limited, step_rows=whole * rows_each)
        batches = -(-whole // min(whole, max(1, rows // rows_each)))
        job = dataclasses.replace(job, rows=rows_each * -(-whole // batches), accumulate=batches)
        if config.ramp_steps and batches == 1:
            raise ConfigError(
                f"ramp_steps is {config.ramp_steps}, but the whole target of {target} tokens fits "
                "one micro-batch, so there is nothing to ramp: leave ramp_steps out, or give "
                "batch_size and accumulate in the place of target_batch_tokens."
            )
    return MemoryChoice(
        job.checkpoint_layers,
        job.rows // rows_each,
        job.accumulate,
        job.context,
        needed_bytes(job, limited),
        allowed,
    )


def _with_fewest_layers(job: Job, machine: Machine) -> Job:
    """Return the job with as few more blocks that compute twice as make it fit."""
    depth = job.model.num_hidden_layers
    for layers in range(min(job.checkpoint_layers, depth), depth + 1):
        tried = dataclasses.replace(job, checkpoint_layers=layers)
        if needed_bytes(tried, machine) <= machine.memory_bytes:
            return tried
    least = dataclasses.replace(job, checkpoint_layers=depth)
    if needed_bytes(job, machine) <= needed_bytes(least, machine):
        least = job
    raise ConfigError(
        f"This run needs {format_bytes(needed_bytes(least, machine))} of memory even with "
        f"{least.checkpoint_layers} blocks that compute twice, but it may take "
        f"{format_bytes(machine.memory_bytes)}. What would fit: {advice(least, machine)}."
    )


def kept_choice(directory: RunDirectory) -> MemoryChoice | None:
    """Return what was chosen for the run in a directory; None where nothing was."""
    kept = directory.recall(_PART)
    return None if kept is None else MemoryChoice(**kept)


def kept_or_chosen(
    config: TrainConfig,
    job_of: Callable[[TrainConfig], Job],
    machine: Machine,
    directory: RunDirectory,
    resume: bool,
    rows_each: int = 1,
) -> MemoryChoice | None:
    """Return the choice of the run that is resumed, or a new one, which run.json then holds."""
    if config.memory_budget is None and config.target_batch_tokens is None:
        return None
    found = (kept_choice(directory) if resume else None) or choose(
        config, job_of, machine, rows_each
    )
    if found is not None:
        directory.remember(_PART, dataclasses.asdict(found))
    return found
