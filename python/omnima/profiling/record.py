"""`profile`: run some steps with the core's scopes recorded, and account for their time."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from omnima._machine import threads_in_use
from omnima.benchmarking.choices import check_precisions
from omnima.benchmarking.limits import describe_machine
from omnima.benchmarking.rounds import check_threads, measured_limits
from omnima.benchmarking.shapes import Shape, shape_of
from omnima.benchmarking.worker import peak_memory
from omnima.errors import ConfigError
from omnima.profiling.memory import forget_peak, memory_by_kind, resident_memory
from omnima.profiling.operators import operator_rows
from omnima.profiling.trace import check_trace_path, write_trace

TASKS = ("train", "evaluate")
_WARM_UP = 2


def profile(
    task: str = "train",
    *,
    preset: str | None = None,
    params: int | None = None,
    vocab_size: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
    precision: str = "bf16",
    threads: int | None = None,
    steps: int = 5,
    trace: str | Path | None = None,
) -> dict[str, Any]:
    """Say where a step's time and memory go on this machine.

    The batches are random tokens from a token shard, read by the loader that training uses.

    Parameters
    ----------
    task : {"train", "evaluate"}
        Whole training steps, or the loss alone.
    preset, params, vocab_size, context, batch_size
        The shape, as for :func:`omnima.benchmark`.
    precision : {"bf16", "fp32"}
        Of the products.
    threads
        None: as many as this process may use.
    steps
        Recorded steps, after two to warm up.
    trace
        Also write a trace there: .json or .json.gz.

    Returns
    -------
    dict
        `operators` (rows by operator and phase, with calls, ms, share, rates and share of the
        roofline, all by step), `memory` (bytes by kind), `step_ms`, `covered` (the operators' share
        of the step), `shape` and `machine`.

    Raises
    ------
    ConfigError
        For an unknown task, preset or precision, sizes that are not positive, or a trace that
        cannot be written.

    Examples
    --------
    >>> found = profile(preset="nima", vocab_size=64, context=16, batch_size=1, steps=1)
    >>> "linear" in {row["operator"] for row in found["operators"]}
    True
    """
    if task not in TASKS:
        raise ConfigError(
            f'Unknown task "{task}"; the tasks are {", ".join([*TASKS, "generate"])}.'
        )
    if steps < 1:
        raise ConfigError(f"steps is {steps}, but must be at least 1.")
    names = check_precisions(precision)
    if len(names) != 1:
        raise ConfigError(f'A profile is of one precision, not "{precision}": take bf16 or fp32.')
    threads = check_threads(threads)
    shape = shape_of(preset, params, vocab_size=vocab_size, context=context, batch_size=batch_size)
    path = None if trace is None else check_trace_path(trace)
    limits = measured_limits(threads)
    run = _record(task, shape, names[0], threads, steps)
    rows = operator_rows(run.spans, steps, run.step_ms, limits, names[0])
    buffers = max(each.team for each in run.spans)
    achieved = shape.flops(task) / run.step_ms / 1e6
    if path is not None:
        write_trace(path, run.spans, f"omnima {task} {shape.name} {names[0]}")
    return {
        "task": task,
        "shape": shape.as_dict(),
        "precision": names[0],
        "steps": steps,
        "step_ms": run.step_ms,
        "median_step_ms": run.median_ms,
        "tokens_per_s": shape.tokens / run.step_ms * 1e3,
        "gflops_per_s": achieved,
        "share_of_limit": achieved / limits[f"{names[0]}_gflops"],
        "covered": sum(row.share for row in rows[:-1]),
        "threads_side_by_side": buffers,
        "operators": [dataclasses.asdict(row) for row in rows],
        "memory": memory_by_kind(run.parameters, buffers, names[0], task, run.before, run.peak),
        "trace": None if path is None else str(path),
        "machine": describe_machine(threads, limits),
    }


@dataclasses.dataclass
class _Recording:
    spans: list[Any]
    step_ms: float
    median_ms: float
    parameters: int
    before: int
    peak: int


def _record(task: str, shape: Shape, precision: str, threads: int, steps: int) -> _Recording:
    from omnima import _core

    before = resident_memory()
    forget_peak()
    with threads_in_use(threads), tempfile.TemporaryDirectory() as place:
        decoder = _core.Decoder(_core.DecoderConfig(shape.model), 0)
        options = _core.StepOptions()
        options.precision = precision
        options.schedule = "constant"
        options.lr = 3e-4
        step = _core.TrainStep(decoder, options)
        source = _random_tokens(Path(place), shape, steps + _WARM_UP)

        def once() -> float:
            start = time.perf_counter()
            step.run(source) if task == "train" else step.evaluate(source, 1)
            return 1e3 * (time.perf_counter() - start)

        for _ in range(_WARM_UP):
            once()
        _core.start_recording()
        try:
            taken = [once() for _ in range(steps)]
        finally:
            spans = _core.stop_recording()
    wall, median = statistics.mean(taken), statistics.median(taken)
    return _Recording(spans, wall, median, decoder.num_parameters(), before, peak_memory())


def _random_tokens(directory: Path, shape: Shape, batches: int) -> Any:
    """Return a loader of one shard of random tokens."""
    import numpy as np

    from omnima._core import Loader

    count = batches * (shape.tokens + shape.batch_size) + 1
    dice = np.random.default_rng(0)
    tokens, documents = directory / "tokens", directory / "documents"
    tokens.write_bytes(dice.integers(shape.model["vocab_size"], size=count, dtype="<u4").tobytes())
    documents.write_bytes(np.asarray([count], dtype="<u8").tobytes())
    return Loader(
        shards=[(str(tokens), str(documents), count, 1)],
        width=4,
        rows=shape.batch_size,
        time=shape.context,
        end_id=0,
        start_id=0,
    )
