"""`omnima info`: what a model holds."""

from __future__ import annotations

from omnima.cli.model_options import model_argument, strict_option
from omnima.cli.output import Json, print_result


def info(
    directory: str = model_argument(),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Show a model's parameters by part, config, tokenizer, training, provenance and files."""
    from omnima.evaluation.inventory import describe_directory

    facts = describe_directory(directory, strict)
    print_result(facts, json)
