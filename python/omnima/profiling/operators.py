"""Recorded spans to a table of operators: own time, calls, rates and the distance to the roofline
(Williams et al. 2009).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

#: Spans around a whole step: what lies in them and in no operator is the rest.
ROOTS = ("step", "evaluate")


class Span(Protocol):
    """What the core records of a scope; times in nanoseconds."""

    @property
    def name(self) -> str: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def thread(self) -> int: ...
    @property
    def team(self) -> int: ...
    @property
    def flops(self) -> float: ...
    @property
    def bytes(self) -> float: ...


@dataclasses.dataclass
class Row:
    """One operator in one phase, by step.

    `ms` is its share of the step's time on the clock: where threads worked side by side, each on
    rows of its own, their time is divided by their number; `thread_ms` is the sum over threads.
    """

    operator: str
    phase: str
    calls: float = 0.0
    ms: float = 0.0
    thread_ms: float = 0.0
    share: float = 0.0
    gflops_per_s: float | None = None
    gb_per_s: float | None = None
    bound: str | None = None
    share_of_roofline: float | None = None


def own_times(spans: Sequence[Span]) -> list[int]:
    """Return the nanoseconds of each span that lie in none of the spans inside it."""
    own = [each.end - each.begin for each in spans]
    threads: dict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(spans):
        threads[each.thread].append(index)
    for indices in threads.values():
        indices.sort(key=lambda i: (spans[i].begin, -spans[i].end))
        open_: list[int] = []
        for i in indices:
            while open_ and spans[open_[-1]].end <= spans[i].begin:
                open_.pop()
            if open_:
                own[open_[-1]] -= spans[i].end - spans[i].begin
            open_.append(i)
    return own


def named(name: str) -> tuple[str, str]:
    """Return operator and phase of a scope's name.

    >>> named("linear.backward"), named("gradient.norm")
    (('linear', 'backward'), ('gradient norm', 'update'))
    """
    head, _, tail = name.rpartition(".")
    if tail in ("forward", "backward"):
        return ("autograd and small operators" if head == "pass" else head), tail
    return name.replace(".", " "), "data" if name == "data" else "update"


def operator_rows(
    spans: Sequence[Span], steps: int, wall_ms: float, limits: Mapping[str, float], precision: str
) -> list[Row]:
    """Return the operators of a recording, the longest first, and at the end the rest.

    Parameters
    ----------
    spans
        As recorded.
    steps
        How many steps they come from.
    wall_ms
        Milliseconds of a step on the clock.
    limits
        As :func:`omnima.benchmarking.measure_limits` measures them.
    precision
        The format of the products: which of the limits bounds them.
    """
    rows: dict[tuple[str, str], Row] = {}
    work: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for span, nanoseconds in zip(spans, own_times(spans)):
        if span.name in ROOTS:
            continue
        key = named(span.name)
        row = rows.setdefault(key, Row(*key))
        row.calls += 1 / steps
        row.thread_ms += nanoseconds / 1e6 / steps
        row.ms += nanoseconds / 1e6 / steps / span.team
        work[key][0] += span.flops / steps
        work[key][1] += span.bytes / steps
    for key, row in rows.items():
        row.share = row.ms / wall_ms
        flops, moved = work[key]
        rate(row, flops, moved, limits[f"{precision}_gflops"], limits["read_gb_per_s"])
    rest = max(0.0, wall_ms - sum(row.ms for row in rows.values()))
    ordered = sorted(rows.values(), key=lambda row: -row.ms)
    return [*ordered, Row("rest: waiting, Python", "", 1.0, rest, rest, rest / wall_ms)]


def rate(
    row: Row, flops: float, moved: float, gflops: float, gb_per_s: float, ms: float | None = None
) -> None:
    """Fill in what an operator achieves and how near that is to what bounds it.

    `ms` is the time in which it did so, where that is not the row's.
    """
    ms = row.ms if ms is None else ms
    if ms <= 0 or not (flops or moved):
        return
    row.gflops_per_s = flops / ms / 1e6 if flops else None
    row.gb_per_s = moved / ms / 1e6 if moved else None
    computing, moving = flops / gflops / 1e6, moved / gb_per_s / 1e6  # ms at best
    row.bound = "products" if computing >= moving else "memory"
    row.share_of_roofline = max(computing, moving) / ms
