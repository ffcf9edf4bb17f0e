"""`omnima export`, `import` and `verify`: models for other tools, with proof, and theirs for us."""

from __future__ import annotations

import typer

from omnima.cli.model_options import model_argument, strict_option
from omnima.cli.output import Json, print_result


def export(
    model: str = model_argument(),
    to: str = typer.Option(..., "--to", help="hf (a directory for transformers) or gguf"),
    out: str = typer.Option(..., "--out", help="where: a new directory, or a file"),
    adapter: str | None = typer.Option(
        None, help="a directory of PEFT, to be merged into the weights first"
    ),
    dtype: str = typer.Option("f32", "--dtype", help="f32, f16, bf16; gguf also q8_0, q4_0"),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Write a model for another tool, which reads it back for the certificate."""
    from omnima.exporting import export as run

    found = run(model, to, out, dtype, strict, adapter).as_dict()
    print_result(found, json)


def import_model(
    path: str = model_argument(),
    out: str = typer.Option(..., "--out", help="the new directory"),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Write another tool's model as a directory of Omnima, in float32."""
    from omnima.evaluation.inventory import describe_directory
    from omnima.exporting import import_model as run

    facts = describe_directory(str(run(path, out, strict)))
    print_result(facts, json)


def verify(
    directory: str = model_argument(),
    against: str = typer.Option(..., "--against", help="transformers or llama.cpp"),
    json: Json = False,
) -> None:
    """Compare a model with what another tool makes of it; 1 where they differ."""
    from omnima.exporting import verify as run

    found = run(directory, against)
    print_result(found.as_dict(), json)
    if not found.passed:
        raise typer.Exit(1)
