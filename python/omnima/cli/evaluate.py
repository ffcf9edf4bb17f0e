"""`omnima eval`: loss, perplexity and bits per byte of a model on held-out text."""

from __future__ import annotations

import typer

from omnima.cli.model_options import device_option, model_argument, strict_option
from omnima.cli.output import Json, print_result


def evaluate(
    directory: str = model_argument(),
    data: list[str] = typer.Option(  # noqa: B008 - Typer's way to say it
        ..., "--data", help="held-out text: files, globs, directories, tinyworld[:SIZE] or pystdlib"
    ),
    field: str | None = typer.Option(None, help="the field of JSON records that holds the text"),
    on_error: str = typer.Option("raise", help="what to do with a bad record: raise or skip"),
    batch_size: int = typer.Option(8, min=1, help="rows measured at once"),
    device: str = device_option(),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Measure a model on text it has not seen."""
    from omnima.evaluation.directory import evaluate_directory

    result = evaluate_directory(
        directory,
        data,
        field=field,
        on_error=on_error,
        batch_size=batch_size,
        device=device,
        strict=strict,
    ).as_dict()
    print_result(result, json)
