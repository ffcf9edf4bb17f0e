"""`omnima inspect`: what a model learns of a sample, token by token."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from omnima.cli.model_options import tokenizer_argument
from omnima.cli.output import Json, print_json

if TYPE_CHECKING:
    from omnima.data.conversations import SupervisionView

DATA = "conversations, instructions or prompts with answers: .json, .jsonl (.gz), globs, folders"


def inspect(
    directory: str = tokenizer_argument(),
    data: list[str] = typer.Option(..., "--data", help=DATA),  # noqa: B008 - Typer's way to say it
    index: int = typer.Option(0, min=0, help="which sample, counted from 0"),
    row: int | None = typer.Option(
        None, min=0, help="which packed row instead; needs --context, the tokens of a row"
    ),
    context: int | None = typer.Option(None, min=2, help="cut samples at so many tokens"),
    json: Json = False,
) -> None:
    """Show each token of a sample: its id, its text, whether it is learned, and its segment."""
    from omnima.data.conversations import inspect as look
    from omnima.hub import open_tokenizer

    view = look(open_tokenizer(directory), data, index, context=context, row=row)
    if json:
        print_json(view.as_dict())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(view)
    else:
        _write_lines(view)


def _write_lines(view: SupervisionView) -> None:
    """Without colours: a line a token."""
    print(view.title())
    print(f"{'id':>8}  {'segment':>7}  learned  text")
    for each in view.tokens:
        learned = "yes" if each.supervised else "-"
        print(f"{each.id:>8}  {each.segment:>7}  {learned:<7}  {each.text!r}")
