"""Systems that take turns: each in a process of its own, in an order drawn anew each round."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from omnima.benchmarking.limits import better_of, describe_machine
from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.benchmarking.systems import missing
from omnima.errors import ConfigError

OURS = "omnima"
_USABLE = 0.7  # of the free memory
_MOST_THREADS = 1024  # a system that cannot start so many ends the process

Say = Callable[[str], None]


def check_threads(threads: int | None) -> int:
    """Return the number of threads to use."""
    from omnima._machine import usable_cores

    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise ConfigError(f"threads is {threads}, but must be from 1 to {_MOST_THREADS}.")
    return threads or usable_cores()


def measured_limits(threads: int) -> dict[str, float]:
    """Measure the machine in a process of its own."""
    with WorkerProcess() as worker:
        return worker.ask({"do": "limits", "threads": threads})


@dataclasses.dataclass(frozen=True)
class Turns:
    """How systems take turns: how often, how many seconds each, on how many threads."""

    rounds: int
    seconds: float
    threads: int
    say: Say

    @classmethod
    def of(cls, rounds: int, seconds: float, threads: int | None, say: Say | None) -> Turns:
        """Check and complete what users give; ConfigError where there would be no turn."""
        if rounds < 1:
            raise ConfigError(f"rounds is {rounds}, but must be at least 1.")
        if not 0 < seconds < math.inf:
            raise ConfigError(f"seconds is {seconds:g}, but must be a number above 0.")
        return cls(rounds, seconds, check_threads(threads), say or (lambda line: None))


class Rounds(ABC):
    """One call of a benchmark: what was measured so far."""

    def __init__(self, task: str, turns: Turns) -> None:
        self.task, self.turns, self.say = task, turns, turns.say
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.dice = random.Random(0)

    def run(
        self, systems: list[str], jobs: Iterable[tuple[str | None, dict[str, Any]]]
    ) -> dict[str, Any]:
        """Measure all systems in every job, a precision and what is asked, and the machine before
        and after.
        """
        threads = self.turns.threads
        before = measured_limits(threads)
        for precision, job in jobs:
            self.measure(precision, systems, {"task": self.task, "threads": threads, **job})
        limits = better_of(before, measured_limits(threads))
        machine = describe_machine(threads, limits)
        self.finish(machine)
        return {
            "task": self.task,
            "shape": self.shape_facts(),
            "rows": self.rows,
            "skipped": self.skipped,
            "machine": machine,
        }

    @abstractmethod
    def shape_facts(self) -> dict[str, Any]:
        """What the report says of the work."""

    def finish(self, machine: dict[str, Any]) -> None:  # noqa: B027 - most add something
        """Add to the rows what only the machine's rates tell."""

    def measure(self, precision: str | None, systems: list[str], job: dict[str, Any]) -> None:
        """Measure all systems in one precision."""
        found: dict[str, Measured] = {}
        able = [name for name in systems if self.able(name, precision)]
        for wave in self._waves(able):
            self._wave(wave, precision, job, found)
        for system in systems:
            if system in found:
                self.rows.append(self.row(found[system], system, precision, found[OURS]))

    def able(self, system: str, precision: str | None) -> bool:
        """Whether a system can be started; if not, the reason is noted."""
        reason = missing(self.task, system)
        if reason and not any(each["system"] == system for each in self.skipped):
            self.skip(system, None, reason)
        return not reason

    def memory(self) -> float | None:
        """A careful estimate, in bytes, of what one system needs; None: little."""
        return None

    def job_of(self, system: str, precision: str | None, job: dict[str, Any]) -> dict[str, Any]:
        """What is asked of a system."""
        return {"system": system, **job}

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        """What every row says."""
        return {
            "system": system,
            "precision": precision,
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

    def skip(self, system: str, precision: str | None, reason: str) -> None:
        """Note a system that cannot run, once, and say so."""
        entry = {"system": system, "reason": reason}
        self.skipped.append(entry if precision is None else {**entry, "precision": precision})
        self.say(f"skipped: {system}: {reason}")

    def _waves(self, systems: list[str]) -> Iterator[list[str]]:
        """Groups that fit into memory together, ours in each."""
        peers = [name for name in systems if name != OURS]
        size = len(peers)
        if needed := self.memory():
            from omnima._machine import memory_of

            free = memory_of(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))["free_bytes"]
            size = max(1, int(_USABLE * free / needed) - 1)
        if not peers:
            yield [OURS]
        for start in range(0, len(peers), max(1, size)):
            yield [OURS, *peers[start : start + size]]

    def _wave(
        self,
        systems: list[str],
        precision: str | None,
        job: dict[str, Any],
        found: dict[str, Measured],
    ) -> None:
        label = precision or job["kind"]
        with contextlib.ExitStack() as stack:
            running: dict[str, WorkerProcess] = {}
            turns: dict[str, list[list[float]]] = {}
            for system in systems:
                worker = stack.enter_context(WorkerProcess())
                self.say(f"{system} {label}: starting")
                request = {"do": "job", **self.job_of(system, precision, job)}
                told = self._ask(system, precision, worker, request)
                if told is None:
                    continue
                told["start_seconds"] = time.perf_counter() - worker.started
                found.setdefault(system, Measured(told))
                running[system], turns[system] = worker, []
            for number in range(self.turns.rounds):
                order = list(running)
                self.dice.shuffle(order)
                self.say(f"{label}: round {number + 1} of {self.turns.rounds}")
                for system in order:
                    request = {"do": "turn", "seconds": self.turns.seconds}
                    told = self._ask(system, precision, running[system], request)
                    if told is None:
                        del running[system], turns[system], found[system]
                        continue
                    turns[system].append(told["seconds"])
            for system, worker in running.items():
                found[system].add(turns[system], turns[OURS], worker.ask({"do": "end"}))

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
            if system == OURS:
                raise
            self.skip(system, precision, str(failed))
            return None


class Measured:
    """The turns of one system in one precision."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.steps: list[float] = []
        self.peak = 0
        self._rounds: list[float] = []
        self._ratios: list[float] = []

    def add(self, turns: list[list[float]], ours: list[list[float]], end: dict[str, Any]) -> None:
        """Take in a wave; ours are our own turns in the same rounds."""
        for mine, other in zip(turns, ours, strict=True):
            self.steps += mine
            self._rounds.append(statistics.median(mine))
            self._ratios.append(statistics.median(mine) / statistics.median(other))
        self.peak = max(self.peak, end["peak_memory_bytes"])
        self.told |= end

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
