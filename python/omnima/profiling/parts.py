"""The recorded spans of a generation to a table of its parts, for the prompt and for a token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from omnima.profiling.operators import Row, Span, own_times, rate

#: The spans around a prompt, and around a step that writes a token to each sequence.
PHASES = ("token", "prompt")
WAITING = "waiting"


def seconds_of(spans: Sequence[Span], phase: str) -> float:
    """Return the mean seconds of a phase."""
    found = [each.end - each.begin for each in spans if each.name == phase]
    return sum(found) / len(found) / 1e9


def bytes_of(spans: Sequence[Span], phase: str) -> float:
    """Return the bytes that the parts of a phase read, each time."""
    times = sum(each.name == phase for each in spans)
    owners = phases_of(spans)
    return sum(each.bytes for each, owner in zip(spans, owners) if owner == phase) / times


def phases_of(spans: Sequence[Span]) -> list[str | None]:
    """Return the phase that each span lies in; None outside of all."""
    roots = sorted(
        ((each.begin, each.end, each.name) for each in spans if each.name in PHASES), reverse=True
    )
    order = sorted(range(len(spans)), key=lambda i: spans[i].begin)
    owners: list[str | None] = [None] * len(spans)
    now: tuple[int, int, str] | None = None
    for i in order:
        while roots and roots[-1][0] <= spans[i].begin:
            now = roots.pop()
        if now is not None and spans[i].end <= now[1]:
            owners[i] = now[2]
    return owners


def part_rows(
    spans: Sequence[Span], limits: Mapping[str, float], format: str, read_gb_per_s: float
) -> list[Row]:
    """Return the parts of a token, the longest first and the rest last, then those of the prompt.

    Parameters
    ----------
    spans
        As recorded.
    limits
        As :func:`omnima.benchmarking.measure_limits` measures them.
    format
        Of the weights: which of the limits bounds the products.
    read_gb_per_s
        The measured rate of reading as many bytes as a token reads.
    """
    gflops = limits["fp32_gflops" if format == "f32" else "bf16_gflops"]
    owners, own = phases_of(spans), own_times(spans)
    waits = _waits_inside(spans)
    rows: list[Row] = []
    for phase in PHASES:
        times = sum(each.name == phase for each in spans)
        whole = 1e3 * seconds_of(spans, phase)
        found: dict[str, Row] = {}
        work: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for span, owner, nanoseconds, waited in zip(spans, owners, own, waits):
            if owner != phase:
                continue
            name = "rest: Python, bookkeeping" if span.name == phase else span.name
            row = found.setdefault(name, Row(name, phase))
            row.calls += 1 / times
            row.ms += nanoseconds / 1e6 / times
            row.thread_ms = row.ms
            for i, amount in enumerate((span.flops, span.bytes, (nanoseconds + waited) / 1e6)):
                work[name][i] += amount / times
        for name, row in found.items():
            row.share = row.ms / whole
            flops, moved, with_waiting = work[name]
            rate(row, flops, moved, gflops, read_gb_per_s, with_waiting)
        rows += sorted(found.values(), key=lambda row: (row.operator[:4] == "rest", -row.ms))
    return rows


def _waits_inside(spans: Sequence[Span]) -> list[int]:
    """The nanoseconds that each span's threads waited for each other right inside it."""
    found = [0] * len(spans)
    order = sorted(range(len(spans)), key=lambda i: (spans[i].begin, -spans[i].end))
    open_: list[int] = []
    for i in order:
        while open_ and spans[open_[-1]].end <= spans[i].begin:
            open_.pop()
        if open_ and spans[i].name == WAITING:
            found[open_[-1]] += spans[i].end - spans[i].begin
        open_.append(i)
    return found
