"""`omnima doctor`: what this machine has and which presets fit it."""

from __future__ import annotations

import typer

from omnima.cli.output import print_json


def doctor(
    json: bool = typer.Option(False, "--json", help="print the result as one JSON object"),
) -> None:
    """Look at this machine: versions, CPU features, threads, memory, GPU and measured speed."""
    from omnima.doctor import collect, render

    facts = collect()
    if json:
        print_json(facts)
    else:
        typer.echo(render(facts), nl=False)
