"""`omnima push`: a saved model onto the Hugging Face hub."""

from __future__ import annotations

import typer

from omnima.cli.output import Json, print_result

_HOW = {
    "card": "it has no model card: save it again with this version, or write a README.md",
    "license": "its card names no license, so nobody knows what they may do with it: train or save "
    "it with a license, or add `license: NAME` to the header of its README.md",
}


def push(
    directory: str = typer.Argument(..., metavar="DIR", help="a saved model"),
    repository: str = typer.Argument(..., metavar="OWNER/NAME", help="made if it is not there"),
    private: bool = typer.Option(False, "--private", help="make a repository that only you read"),
    message: str = typer.Option("Upload a model with Omnima", help="of the commit"),
    json: Json = False,
) -> None:
    """Check a saved model and upload it to the Hugging Face hub (token: HF_TOKEN)."""
    from omnima.hub import push as upload

    done = upload(directory, repository, private, message)
    for each in done.missing:
        typer.echo(f"note: {_HOW[each]}", err=True)
    print_result(done.as_dict(), json)
