"""`omnima data clean|stats|diff`: clean text by a recipe, count it, compare two versions of it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from omnima.cli.model_options import TOKENIZER
from omnima.cli.output import Json, print_json, print_result

app = typer.Typer(
    name="data",
    help="Clean text by a recipe, count what it holds, compare two versions of it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INPUTS = "files, globs, directories, tables, mixtures, hf:OWNER/NAME, tinyworld[:SIZE] or pystdlib"


def _field() -> Any:
    return typer.Option(None, "--field", help="the field of JSON records or tables with the text")


def _on_error() -> Any:
    return typer.Option("raise", "--on-error", help="what to do with a bad record: raise or skip")


def _document_break() -> Any:
    return typer.Option(
        None, "--document-break", help="in text files a line that matches begins a new document"
    )


@app.command("clean")
def clean(
    inputs: list[str] = typer.Argument(..., metavar="IN...", help=_INPUTS),  # noqa: B008
    out: str = typer.Option(..., "--out", help="the cleaned documents: .jsonl or .jsonl.gz"),
    recipe: str = typer.Option(
        "prose", "--recipe", help="a YAML file with a list of steps, or prose, code or duplicates"
    ),
    field: str | None = _field(),
    on_error: str = _on_error(),
    document_break: str | None = _document_break(),
    overwrite: bool = typer.Option(False, "--overwrite", help="replace a file that is there"),
    json: Json = False,
) -> None:
    """Clean text step by step, every step counted; the record stands beside the result."""
    from pathlib import Path

    from omnima.data import open_source
    from omnima.data.cleaning import Cleaning
    from omnima.data.cleaning import clean as run
    from omnima.errors import ConfigError

    if Path(out).exists() and not overwrite:
        raise ConfigError(f"{out} is there already; replace it with --overwrite, or name another.")
    cleaning = Cleaning.open(recipe)
    source = open_source(inputs, field, on_error, document_break)  # type: ignore[arg-type]
    cleaned = run(source, cleaning, out, _Progress() if sys.stderr.isatty() else None)
    result = {"out": str(cleaned.path), **cleaned.record}
    if json:
        print_json(result)
        return
    _print_steps(result)


class _Progress:
    """One line on a terminal, written over."""

    def __call__(self, documents: int, size: int) -> None:
        print(f"\r{documents:,} documents, {size / 1e6:,.1f} MB read", end="", file=sys.stderr)


def _print_steps(result: dict[str, Any]) -> None:
    from rich.table import Table

    from omnima.cli.output import print_table

    if sys.stderr.isatty():
        print(file=sys.stderr)
    table = Table("step", "documents", "dropped", "changed", "bytes", "found and dropped", box=None)
    for each in result["steps"]:
        notes = [f"{name}: {many:,}" for name, many in {**each["dropped"], **each["found"]}.items()]
        table.add_row(
            each["step"],
            f"{each['documents_out']:,}",
            f"{each['documents_in'] - each['documents_out']:,}",
            f"{each['changed']:,}",
            f"{each['bytes_out']:,}",
            ", ".join(notes),
        )
    print_table(table)
    print(
        f"{result['documents_out']:,} of {result['documents_in']:,} documents, "
        f"{result['bytes_out']:,} of {result['bytes_in']:,} bytes, written to {result['out']}"
    )


@app.command("stats")
def stats(
    inputs: list[str] = typer.Argument(..., metavar="IN...", help=_INPUTS),  # noqa: B008
    tokenizer: str | None = typer.Option(
        None, "--tokenizer", help="counts tokens too; " + TOKENIZER
    ),
    field: str | None = _field(),
    on_error: str = _on_error(),
    document_break: str | None = _document_break(),
    json: Json = False,
) -> None:
    """Count documents, bytes, words, lengths, duplicates and languages."""
    from omnima.data import open_source
    from omnima.data.compare import describe

    opened = None
    if tokenizer is not None:
        from omnima.hub import open_tokenizer

        opened = open_tokenizer(tokenizer)
    source = open_source(inputs, field, on_error, document_break)  # type: ignore[arg-type]
    result = describe(source, opened)
    print_result(result, json)


@app.command("diff")
def diff(
    before: str = typer.Argument(..., metavar="A", help="the one version: " + _INPUTS),
    after: str = typer.Argument(..., metavar="B", help="the other version"),
    field: str | None = _field(),
    on_error: str = _on_error(),
    document_break: str | None = _document_break(),
    json: Json = False,
) -> None:
    """Say which documents came, went and stayed from A to B."""
    from omnima.data import open_source
    from omnima.data.compare import compare

    sources = [
        open_source(each, field, on_error, document_break)  # type: ignore[arg-type]
        for each in (before, after)
    ]
    result = compare(*sources)
    print_result(result, json)
