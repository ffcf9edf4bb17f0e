"""`omnima demo`: a page in the browser."""

from __future__ import annotations

import typer

from omnima.cli.model_options import MODEL


def demo(
    directories: list[str] | None = typer.Argument(  # noqa: B008 - Typer's way to say it
        None, metavar="[MODEL]...", help=MODEL
    ),
    adapter: list[str] | None = typer.Option(  # noqa: B008
        None,
        metavar="NAME=DIR",
        help="an adapter to choose on the page, beside each model that it fits; may be repeated",
    ),
    port: int = typer.Option(7860, min=0, max=65535, help="on this machine; 0: any that is free"),
    runs: str = typer.Option("runs", help="where models go that are trained on the page"),
) -> None:
    """Talk with models in the browser, compare them, look into their tokens, train one."""
    from omnima.demo.command import run

    run(directories or (), adapter or (), port, runs)
