"""`benchmark`: systems beside each other, in turns, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from omnima.benchmarking.limits import better_of, describe_machine
from omnima.benchmarking.rounds import (
    OURS,
    Measured,
    Rounds,
    Say,
    check_rounds,
    check_threads,
    measured_limits,
)
from omnima.benchmarking.shapes import Shape, shape_of
from omnima.benchmarking.systems import WRITING, systems_of
from omnima.benchmarking.texts import Corpus, corpus_of
from omnima.errors import ConfigError

TASKS = ("train", "evaluate", "tokenize")
PRECISIONS = ("bf16", "fp32")


def benchmark(
    task: str,
    *,
    preset: str | None = None,
    params: int | None = None,
    vocab_size: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
    precision: str | Sequence[str] = PRECISIONS,
    peers: str | Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 2.0,
    data: str = "pystdlib",
    kind: str = "bpe",
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure Omnima and its peers on this machine.

    Every system has the same vocabulary, depth, width, context, batch and number of threads, and a
    process of its own, so that its peak of memory is its own. They take turns, in an order that is
    drawn anew each round; medians are reported.

    Parameters
    ----------
    task : {"train", "evaluate", "tokenize"}
        Whole training steps (forward, backward, clipping, AdamW), the loss alone, or text to ids.
    preset, params
        The model's size; `bench-13.9m` when neither is given.
    vocab_size, context, batch_size
        In place of the preset's.
    precision
        "bf16", "fp32", or several.
    peers
        Names of the systems beside ours; None: all that are known, "none": no other.
    threads
        Of every system; None: as many as this process may use.
    rounds, seconds
        How many turns each system takes and how long one lasts; a turn has one step at least.
    data, kind
        For tokenize: the text, as :func:`omnima.data.open_source` takes it, and the kind of model.
    say
        Called with a line on what is going on.

    Returns
    -------
    dict
        `task`, `shape`, `rows` (one a system and precision), `skipped` (systems that could not run,
        with the reason) and `machine`. `share_of_limit` is the achieved FLOP/s by those of a matrix
        product of that precision on this machine; `omnima_ratio` how many times as fast Omnima was
        in the same rounds.

    Raises
    ------
    ConfigError
        For an unknown task, peer, precision or preset, and for sizes that are not positive.

    Examples
    --------
    >>> found = benchmark("evaluate", preset="nima", vocab_size=64, context=16, batch_size=1,
    ...                   precision="fp32", peers="none", rounds=1, seconds=0.01)
    >>> [row["system"] for row in found["rows"]]
    ['omnima']
    """
    if task in WRITING:
        raise ConfigError(f"{task} measures a model: take benchmarking.benchmark_generation.")
    systems = [OURS, *check_peers(task, peers)]
    precisions = check_precisions(precision)
    check_rounds(rounds, seconds)
    threads = check_threads(threads)
    with contextlib.ExitStack() as stack:
        shape, corpus = None, None
        jobs: list[tuple[str | None, dict[str, Any]]]
        if task == "tokenize":
            corpus = stack.enter_context(corpus_of(data, kind, vocab_size, systems))
            jobs = [(None, {"directory": str(corpus.directory), "documents": str(corpus.path)})]
        else:
            shape = shape_of(
                preset, params, vocab_size=vocab_size, context=context, batch_size=batch_size
            )
            jobs = [(each, {"precision": each, "shape": shape.as_dict()}) for each in precisions]
        run = _Run(task, rounds, seconds, shape, corpus, say or (lambda line: None))
        limits = measured_limits(threads)
        for name, job in jobs:
            common = {"task": task, "threads": threads, "seed": 0, "kind": kind, **job}
            run.measure(name, systems, common)
        limits = better_of(limits, measured_limits(threads))
    return run.report(describe_machine(threads, limits))


def check_peers(task: str, peers: str | Sequence[str] | None) -> list[str]:
    """Return the names of the peers that are asked for."""
    if task not in (*TASKS, *WRITING):
        raise ConfigError(f'Unknown task "{task}"; the tasks are {", ".join([*TASKS, *WRITING])}.')
    known = [name for name in systems_of(task) if name != OURS]
    if peers is None:
        return known
    given = peers.split(",") if isinstance(peers, str) else list(peers)
    names = list(dict.fromkeys(name.strip() for name in given if name.strip() not in ("", "none")))
    for name in names:
        if name != OURS and name not in known:
            raise ConfigError(
                f'Unknown peer "{name}" for {task}; the peers are {", ".join(known)}, or none.'
            )
    return [name for name in names if name != OURS]


def check_precisions(precision: str | Sequence[str]) -> list[str]:
    """Return the precisions that are asked for."""
    given = precision.split(",") if isinstance(precision, str) else list(precision)
    names = list(dict.fromkeys(name.strip() for name in given))
    for name in names:
        if name not in PRECISIONS:
            raise ConfigError(
                f'Unknown precision "{name}"; expected {" or ".join(PRECISIONS)}, or both with a '
                "comma."
            )
    return names


class _Run(Rounds):
    """One call of `benchmark`: what was measured so far."""

    def __init__(
        self,
        task: str,
        rounds: int,
        seconds: float,
        shape: Shape | None,
        corpus: Corpus | None,
        say: Say,
    ) -> None:
        super().__init__(task, rounds, seconds, say)
        self.shape, self.corpus = shape, corpus

    def memory(self) -> float | None:
        return self.shape.memory(self.task) if self.shape else None

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        row = super().row(found, system, precision, ours)
        tokens = self.shape.tokens if self.shape else found.told["tokens"]
        row["tokens_per_s"] = tokens / found.seconds
        if self.shape is not None:
            row["gflops_per_s"] = self.shape.flops(self.task) / found.seconds / 1e9
            row["parameters"] = found.told["parameters"]
        if self.corpus is not None:
            row["mb_per_s"] = self.corpus.bytes / found.seconds / 1e6
        return row

    def report(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Everything that was measured, beside the machine."""
        for row in self.rows:
            if "gflops_per_s" in row:
                row["share_of_limit"] = row["gflops_per_s"] / machine[f"{row['precision']}_gflops"]
        about = self.shape.as_dict() if self.shape else {}
        if self.corpus is not None:
            about = self.corpus.as_dict()
        return {
            "task": self.task,
            "shape": about,
            "rows": self.rows,
            "skipped": self.skipped,
            "machine": machine,
        }
