"""`omnima info`: what a model holds."""

from __future__ import annotations

import typer

from omnima.cli.model_options import model_argument, strict_option
from omnima.cli.output import print_facts, print_json


def info(
    directory: str = model_argument(),
    strict: bool = strict_option(),
    json: bool = typer.Option(False, "--json", help="print the result as one JSON object"),
) -> None:
    """Show a model's parameters by part, config, tokenizer, training, provenance and files."""
    from omnima.evaluation.inventory import describe_directory

    facts = describe_directory(directory, strict)
    print_json(facts) if json else print_facts(facts)
