"""`omnima reward`: what a reward model says of texts, or how often it agrees with people."""

from __future__ import annotations

import sys

import typer

from omnima.cli.model_options import device_option, model_argument
from omnima.cli.output import Json, print_json, print_result
from omnima.errors import ConfigError


def reward(
    directory: str = model_argument(),
    data: list[str] = typer.Option(  # noqa: B008 - Typer's way to say it
        [], "--data", help="pairs of answers (chosen, rejected) to compare: .json, .jsonl (.gz)"
    ),
    on_error: str = typer.Option("raise", help="what to do with a bad record: raise or skip"),
    adapter: str | None = typer.Option(
        None, help="of a reward model, a directory of PEFT: beside the weights, with its head"
    ),
    device: str = device_option(),
    json: Json = False,
) -> None:
    """Judge the texts on standard input, a line each, or the pairs of --data."""
    from omnima.evaluation.preferences import judge_pairs
    from omnima.model import Model

    model = Model.from_pretrained(directory, device)
    if adapter is not None:
        model = model.as_asked_by(adapter)
        model.load_adapter(adapter)
    if data:
        print_result(judge_pairs(model, data, on_error).as_dict(), json)
        return
    texts = [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise ConfigError("Nothing to judge: give --data PAIRS, or texts on standard input.")
    found = model.reward(texts)
    if json:
        print_json({"rewards": found})
        return
    for value, text in zip(found, texts):
        typer.echo(f"{value:+.4f}  {text}")
