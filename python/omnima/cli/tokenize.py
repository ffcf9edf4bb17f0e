"""`omnima tokenize`: the ids and pieces of a text, as `omnima tokenizer encode` writes them."""

from __future__ import annotations

import typer

from omnima.cli.model_options import tokenizer_argument
from omnima.cli.output import Json
from omnima.cli.tokenizer import write_ids


def tokenize(
    directory: str = tokenizer_argument(),
    text: str = typer.Option(..., "--text", help="the text; - reads standard input"),
    json: Json = False,
) -> None:
    """Show how a tokenizer cuts a text: the same as `omnima tokenizer encode --pieces`."""
    write_ids(directory, None if text == "-" else text, pieces=True, as_json=json)
