"""`omnima profile`: where a step's time and memory go."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.output import print_json
from omnima.cli.shape_options import Json, Markdown, with_shape


@with_shape
def profile(
    task: str = typer.Argument(..., metavar="TASK", help="train or evaluate"),
    precision: str = typer.Option("bf16", help="bf16 or fp32"),
    threads: int | None = typer.Option(None, help="all cores by default"),
    steps: int = typer.Option(5, help="recorded steps, after two to warm up"),
    trace: str | None = typer.Option(
        None, help="write a trace for Perfetto or chrome://tracing: .json or .json.gz"
    ),
    markdown: Markdown = False,
    json: Json = False,
    **shape: Any,
) -> None:
    """Show where a step's time and memory go, by operator, against the machine's limits."""
    from omnima.cli.output import print_table
    from omnima.profiling import profile as record
    from omnima.profiling import tables

    report = record(
        task,
        **shape,
        precision=precision,
        threads=threads,
        steps=steps,
        trace=trace,
    )
    if json:
        print_json(report)
    elif markdown:
        typer.echo(tables.markdown(report), nl=False)
    else:
        print_table(tables.table(report))
