"""`omnima tokenize`: the ids and pieces of a text."""

from __future__ import annotations

import typer

from omnima.cli.output import print_json


def tokenize(
    directory: str = typer.Argument(..., metavar="DIR", help="directory of a tokenizer or a model"),
    text: str = typer.Option(..., "--text", help="the text; - reads standard input"),
    json: bool = typer.Option(False, "--json", help="print the result as one JSON object"),
) -> None:
    """Show how a tokenizer cuts a text."""
    import sys

    from omnima import Tokenizer

    tokenizer = Tokenizer.from_pretrained(directory)
    ids = [int(each) for each in tokenizer.encode(sys.stdin.read() if text == "-" else text)]
    pieces = list(tokenizer.pieces(ids))
    if json:
        print_json({"ids": ids, "pieces": pieces})
        return
    for number, piece in zip(ids, pieces, strict=True):
        typer.echo(f"{number}\t{piece}")
