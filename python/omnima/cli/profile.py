"""`omnima profile`: where a step's time and memory go."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.model_options import ACTIVATIONS, CACHE, MODEL
from omnima.cli.output import Json, print_json
from omnima.cli.shape_options import Markdown, given, refuse, with_shape


@with_shape
def profile(
    task: str = typer.Argument(..., metavar="TASK", help="train, evaluate or generate"),
    model: str | None = typer.Option(
        None, help=f"generate: {MODEL}; random weights of the shape when not given"
    ),
    format: str | None = typer.Option(None, help="generate: of the weights; f32 by default"),
    activations: str | None = typer.Option(None, help="generate: " + ACTIVATIONS),
    cache_precision: str | None = typer.Option(None, help="generate: " + CACHE),
    sequences: int | None = typer.Option(None, help="generate: written together; 1 by default"),
    prompt_tokens: int | None = typer.Option(None, help="generate: 64 by default"),
    new_tokens: int | None = typer.Option(None, help="generate: tokens to write; 128 by default"),
    precision: str | None = typer.Option(None, help="bf16 (the default) or fp32"),
    threads: int | None = typer.Option(None, help="all cores by default"),
    steps: int | None = typer.Option(None, help="recorded steps, after two to warm up; 5"),
    trace: str | None = typer.Option(
        None, help="write a trace for Perfetto or chrome://tracing: .json or .json.gz"
    ),
    markdown: Markdown = False,
    json: Json = False,
    **shape: Any,
) -> None:
    """Show where the time of a step or of a written token goes, against the machine's limits."""
    from omnima.cli.output import print_table
    from omnima.profiling import profile as record
    from omnima.profiling import profile_generation, tables

    writing = {
        "model": model,
        "format": format,
        "activations": activations,
        "cache_precision": cache_precision,
        "sequences": sequences,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
    }
    training = {"precision": precision, "steps": steps}
    common: dict[str, Any] = {"threads": threads, "trace": trace}
    if task == "generate":
        batch_size = shape.pop("batch_size")
        refuse("profile", task, {**training, "batch_size": batch_size})
        report = profile_generation(**given(writing), **shape, **common)
    else:
        if task in ("train", "evaluate"):
            refuse("profile", task, writing)
        report = record(task, **shape, **given(training), **common)
    if json:
        print_json(report)
    elif markdown:
        typer.echo(tables.markdown(report), nl=False)
    else:
        print_table(tables.table(report))
