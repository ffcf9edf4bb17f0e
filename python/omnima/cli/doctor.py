"""`omnima doctor`: what this machine has and which presets fit it."""

from __future__ import annotations

import typer

from omnima.cli.output import Json, print_json


def doctor(json: Json = False) -> None:
    """Look at this machine: versions, CPU features, threads, memory, GPU and measured speed."""
    from omnima.doctor import collect, render

    facts = collect()
    if json:
        print_json(facts)
    else:
        typer.echo(render(facts), nl=False)
