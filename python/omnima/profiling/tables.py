"""A profile for people: a Markdown table, or tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnima.benchmarking.tables import machine_line
from omnima.benchmarking.tables import title as shape_title

if TYPE_CHECKING:
    from rich.table import Table

_HEADS = ("operator", "phase", "calls", "ms", "share", "GFLOP/s", "GB/s", "bound by", "of roofline")


def title(report: dict[str, Any]) -> str:
    """Return one line on what a profile is of."""
    if report["task"] == "generate":
        return (
            f"profile {shape_title(report)}, {report['precision']}: {report['plain_token_ms']:.2f} "
            f"ms a token ({report['token_ms']:.2f} while recorded), {report['tokens_per_s']:,.0f} "
            f"tokens/s, prompt {report['prompt_ms']:.1f} ms"
        )
    return (
        f"profile {shape_title(report)}, {report['precision']}: {report['step_ms']:.1f} ms a step, "
        f"{report['tokens_per_s']:,.0f} tokens/s, {report['gflops_per_s']:,.0f} GFLOP/s "
        f"({100 * report['share_of_limit']:.0f}% of the measured product)"
    )


def cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's rows, the heads first."""

    def number(value: float | None, form: str = ",.1f") -> str:
        return "" if value is None else format(value, form)

    table: list[tuple[str, ...]] = [_HEADS]
    for row in report["operators"]:
        table.append(
            (
                row["operator"],
                row["phase"],
                number(row["calls"], ".0f"),
                number(row["ms"], ",.2f" if row["ms"] >= 1 else ".3f"),
                number(row["share"], ".1%"),
                number(row["gflops_per_s"], ",.0f"),
                number(row["gb_per_s"]),
                row["bound"] or "",
                number(row["share_of_roofline"], ".0%"),
            )
        )
    return table


def notes(report: dict[str, Any]) -> list[str]:
    """Return the lines under the table."""
    if report["task"] == "generate":
        return _notes_on_writing(report)
    kinds = {
        "weights": "weights",
        "gradients": "gradients",
        "optimizer_state": "optimizer state",
        "bf16_copy": "bf16 copy",
        "activations_peak": "activations and scratch at their peak",
        "process": "the process before the model",
        "peak": "peak of the process",
    }
    held = ", ".join(f"{name} {report['memory'][key] / 2**20:,.1f}" for key, name in kinds.items())
    side = report["threads_side_by_side"]
    lines = [f"Memory in MiB: {held}."]
    if side > 1:
        lines.append(
            f"{side} threads worked side by side, each on rows of its own: ms is their time "
            f"divided by {side}, so that the column adds up to the step."
        )
    lines.append("GB/s and roofline count each operand once; above 100% it came from a cache.")
    if report["trace"]:
        lines.append(f"Trace: {report['trace']} (open it in https://ui.perfetto.dev).")
    return [*lines, machine_line(report)]


def _notes_on_writing(report: dict[str, Any]) -> list[str]:
    held = report["memory"]
    names = {
        "weights": "weights",
        "keys_and_values": "keys and values",
        "process": "the process before the model",
        "peak": "peak of the process",
    }
    lines = [
        f"A token reads {report['bytes_per_token'] / 1e6:,.1f} MB at "
        f"{report['gb_per_s']:.1f} GB/s: {100 * report['share_of_read_bandwidth']:.0f}% of the "
        f"{report['read_limit_gb_per_s']:.1f} GB/s at which so many bytes are read over and over.",
        f"Memory in MiB: {', '.join(f'{n} {held[k] / 2**20:,.1f}' for k, n in names.items())}.",
        "Rates and roofline of a part include the waiting inside it.",
    ]
    if report["trace"]:
        lines.append(f"Trace: {report['trace']} (open it in https://ui.perfetto.dev).")
    return [*lines, machine_line(report)]


def markdown(report: dict[str, Any]) -> str:
    """Return a report of :func:`profile` as a Markdown table with notes."""
    heads, *rows = cells(report)
    lines = [f"**{title(report)}**", "", f"| {' | '.join(heads)} |"]
    lines.append(f"| --- | --- |{' ---: |' * (len(heads) - 2)}")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    for line in notes(report):
        lines += ["", line]
    return "\n".join(lines) + "\n"


def table(report: dict[str, Any]) -> Table:
    """Return a report of :func:`profile` as a table of Rich."""
    from rich.table import Table

    heads, *rows = cells(report)
    shown = Table(title=title(report), title_justify="left", caption_justify="left")
    shown.caption = "\n".join(notes(report))
    for head in heads:
        shown.add_column(head, justify="left" if head in ("operator", "phase") else "right")
    for row in rows:
        shown.add_row(*row)
    return shown
