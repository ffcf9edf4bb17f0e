"""`omnima merge`: an adapter becomes part of a model."""

from __future__ import annotations

import typer

from omnima.cli.model_options import model_argument, strict_option
from omnima.cli.output import Json, print_result


def merge(
    model: str = model_argument(),
    adapter: str = typer.Argument(..., metavar="ADAPTER", help="a directory of PEFT"),
    out: str = typer.Option(..., "--out", help="the new directory"),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Merge an adapter into a model's weights; the logits before and after prove it."""
    from omnima.exporting import merge as run

    print_result(run(model, adapter, out, strict).as_dict(), json)
