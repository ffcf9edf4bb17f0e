"""`omnima profile`: where a step's time and memory go."""

from __future__ import annotations

import typer

from omnima.cli.output import print_json


def profile(
    task: str = typer.Argument(..., metavar="TASK", help="train or evaluate"),
    preset: str | None = typer.Option(
        None, help="a preset, or a shape of the tables: bench-1.9m, bench-13.9m, …"
    ),
    params: str | None = typer.Option(None, help="a number of parameters, such as 20M"),
    vocab_size: int | None = typer.Option(None, help="tokens of the vocabulary"),
    context: int | None = typer.Option(None, help="tokens in a row"),
    batch_size: int | None = typer.Option(None, help="rows of a batch"),
    precision: str = typer.Option("bf16", help="bf16 or fp32"),
    threads: int | None = typer.Option(None, help="all cores by default"),
    steps: int = typer.Option(5, help="recorded steps, after two to warm up"),
    trace: str | None = typer.Option(
        None, help="write a trace for Perfetto or chrome://tracing: .json or .json.gz"
    ),
    markdown: bool = typer.Option(False, "--markdown", help="print a Markdown table"),
    json: bool = typer.Option(False, "--json", help="print the result as one JSON object"),
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
