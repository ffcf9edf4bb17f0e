"""`omnima profile`: where a step's time and memory go."""

from __future__ import annotations

import typer

from omnima.cli.output import print_json
from omnima.cli.shape_options import (
    BatchSize,
    Context,
    Json,
    Markdown,
    Params,
    Preset,
    VocabSize,
)


def profile(
    task: str = typer.Argument(..., metavar="TASK", help="train or evaluate"),
    preset: Preset = None,
    params: Params = None,
    vocab_size: VocabSize = None,
    context: Context = None,
    batch_size: BatchSize = None,
    precision: str = typer.Option("bf16", help="bf16 or fp32"),
    threads: int | None = typer.Option(None, help="all cores by default"),
    steps: int = typer.Option(5, help="recorded steps, after two to warm up"),
    trace: str | None = typer.Option(
        None, help="write a trace for Perfetto or chrome://tracing: .json or .json.gz"
    ),
    markdown: Markdown = False,
    json: Json = False,
) -> None:
    """Show where a step's time and memory go, by operator, against the machine's limits."""
    from omnima.cli.output import print_table
    from omnima.profiling import profile as record
    from omnima.profiling import tables
    from omnima.training.recipe import parse_count

    report = record(
        task,
        preset=preset,
        params=None if params is None else parse_count(params),
        vocab_size=vocab_size,
        context=context,
        batch_size=batch_size,
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
