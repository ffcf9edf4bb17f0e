"""A report for people: a Markdown table, or a table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.benchmarking.systems import WRITING

if TYPE_CHECKING:
    from rich.table import Table

_HEADS = ("system", "format", "tokens/s", "ms a step", "±", "peak MiB", "first step s", "of limit",
          "Omnima is")  # fmt: skip
_WRITING_HEADS = ("system", "format", "computes from", "tokens/s", "ms a token", "±",
                  "first token ms", "peak MiB", "GB/s", "of limit", "Omnima is")  # fmt: skip
_QUANTIZE_HEADS = ("system", "format", "method", "group", "bits a weight", "MB", "perplexity",
                   "change", "seconds", "peak MiB")  # fmt: skip
_TEXT_HEADS = ("system", "tokens/s", "MB/s", "ms a pass", "±", "peak MiB", "Omnima is")


def title(report: dict[str, Any]) -> str:
    """Return one line on what a report measured."""
    shape = report["shape"]
    if report["task"] == "tokenize":
        size = f"{shape['bytes'] / 1e6:.1f} MB of {Path(shape['data']).name}"
        return f"tokenize: {shape['kind']} of {shape['vocab_size']:,} pieces, {size}"
    if report["task"] == "quantize":
        text = "Python's standard library" if shape["data"] is None else Path(shape["data"]).name
        return (
            f"quantize {shape['name']}: {shape['parameters']:,} parameters, perplexity on "
            f"{shape['tokens']:,} tokens of {text}"
        )
    if report["task"] in (*WRITING, "generate"):
        return (
            f"{report['task']} {shape['name']}: {shape['parameters']:,} parameters, sequences "
            f"{shape['sequences']}, prompt {shape['prompt_tokens']}, new {shape['new_tokens']}"
        )
    m = shape["model"]
    return (
        f"{report['task']} {shape['name']}: {m['num_hidden_layers']} layers of {m['hidden_size']}, "
        f"{m['vocab_size']:,} tokens, context {m['max_position_embeddings']:,}, "
        f"batch {shape['batch_size']}"
    )


def machine_line(report: dict[str, Any]) -> str:
    """Return one line on the machine, with its measured limits."""
    m = report["machine"]
    return (
        f"{m['cpu']}, {m['threads']} threads, kernels {m['level']}, torch {m['torch']}; measured: "
        f"products {m['fp32_gflops']:,.0f} GFLOP/s in fp32 and {m['bf16_gflops']:,.0f} in bf16, "
        f"memory {m['read_gb_per_s']:.1f} GB/s"
    )


def cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's rows, the heads first."""
    if report["task"] in WRITING:
        return [_WRITING_HEADS, *map(_writing_cells, report["rows"])]
    if report["task"] == "quantize":
        return [_QUANTIZE_HEADS, *map(_quantize_cells, report["rows"])]
    texts = report["task"] == "tokenize"
    table: list[tuple[str, ...]] = [_TEXT_HEADS if texts else _HEADS]
    for row in report["rows"]:
        ratio = "" if row["system"] == "omnima" else f"{row['omnima_ratio']:.2f}x as fast"
        rate = f"{row['tokens_per_s']:,.0f}"
        common = (
            f"{1e3 * row['seconds']:,.1f}",
            f"{100 * row['spread']:.0f}%",
            f"{row['peak_memory_bytes'] / 2**20:,.0f}",
        )
        if texts:
            table.append((row["system"], rate, f"{row['mb_per_s']:.1f}", *common, ratio))
            continue
        first = f"{row['first_step_seconds']:.2f}"
        share = f"{100 * row['share_of_limit']:.0f}%"
        table.append((row["system"], row["precision"], rate, *common, first, share, ratio))
    return table


def _writing_cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["absent"]:
        return (row["system"], row["precision"], "absent", *[""] * (len(_WRITING_HEADS) - 3))
    return (
        row["system"],
        row["precision"],
        row["format"],
        f"{row['tokens_per_s']:,.1f}",
        f"{row['ms_per_token']:,.2f}",
        f"{100 * row['spread']:.0f}%",
        f"{1e3 * row['first_token_seconds']:,.1f}",
        f"{row['peak_memory_bytes'] / 2**20:,.0f}",
        f"{row['read_gb_per_s']:.1f}",
        f"{100 * row['share_of_limit']:.0f}%",
        "" if row["system"] == "omnima" else f"{row['omnima_ratio']:.2f}x as fast",
    )


def _quantize_cells(row: dict[str, Any]) -> tuple[str, ...]:
    named = (row["system"], row["precision"])
    if row["absent"]:
        return (*named, row["method"] or "", "absent", *[""] * (len(_QUANTIZE_HEADS) - 4))
    return (
        *named,
        row["method"],
        "" if row["group_size"] is None else str(row["group_size"] or "row"),
        f"{row['bits_per_weight']:.2f}",
        f"{row['bytes'] / 1e6:,.1f}",
        f"{row['perplexity_after']:,.3f}",
        f"{100 * row['change']:+.2f}%",
        f"{row['seconds']:,.1f}",
        f"{row['peak_memory_bytes'] / 2**20:,.0f}",
    )


def skipped_lines(report: dict[str, Any]) -> list[str]:
    """Return a line for each system that could not run."""
    return [
        f"skipped: {each['system']}{' ' + each['precision'] if 'precision' in each else ''}: "
        f"{each['reason']}"
        for each in report["skipped"]
    ]


def markdown(report: dict[str, Any]) -> str:
    """Return a report of :func:`benchmark` as a Markdown table with its machine."""
    heads, *rows = cells(report)
    lines = [f"**{title(report)}**", ""]
    lines += [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    for line in (*skipped_lines(report), machine_line(report)):
        lines += ["", line]
    return "\n".join(lines) + "\n"


def table(report: dict[str, Any]) -> Table:
    """Return a report of :func:`benchmark` as a table of Rich."""
    from rich.table import Table

    heads, *rows = cells(report)
    shown = Table(title=title(report), title_justify="left", caption_justify="left")
    shown.caption = "\n".join([*skipped_lines(report), machine_line(report)])
    for number, head in enumerate(heads):
        shown.add_column(head, justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    return shown
