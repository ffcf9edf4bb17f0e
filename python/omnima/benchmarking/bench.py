"""`benchmark`: systems beside each other, in turns, each in a process of its own."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omnima.benchmarking.limits import better_of, describe_machine
from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.benchmarking.shapes import Shape, shape_of
from omnima.benchmarking.systems import missing, systems_of
from omnima.benchmarking.texts import Corpus, corpus_of
from omnima.errors import ConfigError

TASKS = ("train", "evaluate", "tokenize")
PRECISIONS = ("bf16", "fp32")
_OURS = "omnima"
_USABLE = 0.7  # of the free memory

Say = Callable[[str], None]


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
    systems = [_OURS, *check_peers(task, peers)]
    precisions = check_precisions(precision)
    if rounds < 1 or not seconds > 0:
        raise ConfigError("rounds must be at least 1 and seconds above 0.")
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
        run = _Run(task, threads, rounds, seconds, shape, corpus, say or (lambda line: None))
        limits = measured_limits(threads)
        for name, job in jobs:
            common = {"task": task, "threads": threads, "seed": 0, "kind": kind, **job}
            run.measure(name, systems, common)
        limits = better_of(limits, measured_limits(threads))
    return run.report(describe_machine(threads, limits))


def check_peers(task: str, peers: str | Sequence[str] | None) -> list[str]:
    """Return the names of the peers that are asked for."""
    if task not in TASKS:
        raise ConfigError(f'Unknown task "{task}"; the tasks are {", ".join(TASKS)}.')
    known = [name for name in systems_of(task) if name != _OURS]
    if peers is None:
        return known
    given = peers.split(",") if isinstance(peers, str) else list(peers)
    names = list(dict.fromkeys(name.strip() for name in given if name.strip() not in ("", "none")))
    for name in names:
        if name != _OURS and name not in known:
            raise ConfigError(
                f'Unknown peer "{name}" for {task}; the peers are {", ".join(known)}, or none.'
            )
    return [name for name in names if name != _OURS]


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


def check_threads(threads: int | None) -> int:
    """Return the number of threads to use."""
    from omnima._machine import usable_cores

    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, but must be at least 1.")
    return threads or usable_cores()


def measured_limits(threads: int) -> dict[str, float]:
    """Measure the machine in a process of its own."""
    with WorkerProcess() as worker:
        return worker.ask({"do": "limits", "threads": threads})


class _Run:
    """One call of `benchmark`: what was measured so far."""

    def __init__(
        self,
        task: str,
        threads: int,
        rounds: int,
        seconds: float,
        shape: Shape | None,
        corpus: Corpus | None,
        say: Say,
    ) -> None:
        self.task, self.threads, self.rounds, self.seconds = task, threads, rounds, seconds
        self.shape, self.corpus, self.say = shape, corpus, say
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.dice = random.Random(0)

    def measure(self, precision: str | None, systems: list[str], job: dict[str, Any]) -> None:
        """Measure all systems in one precision."""
        found: dict[str, _Measured] = {}
        for wave in self._waves(systems, precision):
            self._wave(wave, precision, job, found)
        for system in systems:
            if system in found:
                self.rows.append(self._row(found[system], system, precision, found[_OURS]))

    def _waves(self, systems: list[str], precision: str | None) -> Iterator[list[str]]:
        """Groups that fit into memory together, ours in each."""
        peers = []
        for name in systems[1:]:
            reason = missing(self.task, name)
            peers += [] if reason else [name]
            if reason and not any(each["system"] == name for each in self.skipped):
                self._skip(name, None, reason)
        size = len(peers)
        if self.shape is not None:
            from omnima._machine import memory_of

            free = memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))["free_bytes"]
            size = max(1, int(_USABLE * free / self.shape.memory(self.task)) - 1)
        if not peers:
            yield [_OURS]
        for start in range(0, len(peers), max(1, size)):
            yield [_OURS, *peers[start : start + size]]

    def _wave(
        self,
        systems: list[str],
        precision: str | None,
        job: dict[str, Any],
        found: dict[str, _Measured],
    ) -> None:
        with contextlib.ExitStack() as stack:
            running: dict[str, WorkerProcess] = {}
            turns: dict[str, list[list[float]]] = {}
            for system in systems:
                worker = stack.enter_context(WorkerProcess())
                self.say(f"{system} {precision or job['kind']}: starting")
                request = {"do": "job", "system": system, **job}
                told = self._ask(system, precision, worker, request)
                if told is None:
                    continue
                told["start_seconds"] = time.perf_counter() - worker.started
                found.setdefault(system, _Measured(told))
                running[system], turns[system] = worker, []
            for number in range(self.rounds):
                order = list(running)
                self.dice.shuffle(order)
                self.say(f"{precision or job['kind']}: round {number + 1} of {self.rounds}")
                for system in order:
                    request = {"do": "turn", "seconds": self.seconds}
                    told = self._ask(system, precision, running[system], request)
                    if told is None:
                        del running[system], turns[system], found[system]
                        continue
                    turns[system].append(told["seconds"])
            for system, worker in running.items():
                told = worker.ask({"do": "end"})
                found[system].add(turns[system], turns[_OURS], told["peak_memory_bytes"])

    def _ask(
        self,
        system: str,
        precision: str | None,
        worker: WorkerProcess,
        request: dict[str, Any],
    ) -> dict[str, Any] | None:
        """Ask, and note a peer that fails; our own failure is an error."""
        try:
            return worker.ask(request)
        except SystemFailed as failed:
            if system == _OURS:
                raise
            self._skip(system, precision, str(failed))
            return None

    def _skip(self, system: str, precision: str | None, reason: str) -> None:
        entry = {"system": system, "reason": reason}
        self.skipped.append(entry if precision is None else {**entry, "precision": precision})
        self.say(f"skipped: {system}: {reason}")

    def _row(
        self, found: _Measured, system: str, precision: str | None, ours: _Measured
    ) -> dict[str, Any]:
        tokens = self.shape.tokens if self.shape else found.told["tokens"]
        row: dict[str, Any] = {
            "system": system,
            "precision": precision,
            "tokens_per_s": tokens / found.seconds,
            "seconds": found.seconds,
            "peak_memory_bytes": found.peak,
            "share_of_limit": None,
            "omnima_ratio": found.ratio,
            "memory_ratio": ours.peak / found.peak,
            "first_step_seconds": found.told["first_step_seconds"],
            "start_seconds": found.told["start_seconds"],
            "steps": len(found.steps),
            "spread": found.spread,
        }
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


class _Measured:
    """The turns of one system in one precision."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.steps: list[float] = []
        self.peak = 0
        self._rounds: list[float] = []
        self._ratios: list[float] = []

    def add(self, turns: list[list[float]], ours: list[list[float]], peak: int) -> None:
        """Take in a wave; ours are our own turns in the same rounds."""
        for mine, other in zip(turns, ours, strict=True):
            self.steps += mine
            self._rounds.append(statistics.median(mine))
            self._ratios.append(statistics.median(mine) / statistics.median(other))
        self.peak = max(self.peak, peak)

    @property
    def seconds(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.steps)

    @property
    def ratio(self) -> float:
        """The median over the rounds of this system's seconds by ours."""
        return statistics.median(self._ratios)

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, by their median."""
        return (max(self._rounds) - min(self._rounds)) / statistics.median(self._rounds)
