"""`omnima train`: from raw text to a model. Its flags are the recipe's keys."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from omnima.cli.output import print_facts, print_json
from omnima.errors import ConfigError
from omnima.training.recipe import Recipe
from omnima.training.schema import Field

_AT_ONCE = "Stopped at once. The same command with --resume goes on from what is on disk."
_NOT_WITH_REPEAT = ("config", "resume", "verify-resume", "find-lr")
_NOT_FLAGS = ("model",)  # set with --set model.FIELD=value


def flag_of(field: Field) -> inspect.Parameter:
    """Return the flag of a recipe key."""
    kind: Any = list[str] if field.kind is tuple else field.kind
    meaning = field.meaning
    if field.choices:
        meaning += f": {', '.join(field.choices)}"
    if field.default not in (None, (), ""):
        meaning += f" [default: {field.default}]"
    flag = field.flag
    if field.kind is bool:
        flag += "/--no-" + flag.removeprefix("--")
    option = typer.Option(None, flag, help=meaning, show_default=False, rich_help_panel=field.group)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
    )


def own_flag(name: str, kind: Any, default: Any, meaning: str) -> inspect.Parameter:
    """Return a flag that is a command's own."""
    flag = "--" + name.replace("_", "-")
    option = typer.Option(default, flag, help=meaning, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


@contextmanager
def stopping() -> Iterator[None]:
    """Leave with 130 where a run was interrupted, and say how it goes on."""
    from omnima.training.signals import RunInterrupted

    try:
        yield
    except RunInterrupted as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(130) from stopped
    except KeyboardInterrupt as stopped:  # while preparing, or a second one while saving
        typer.echo(_AT_ONCE, err=True)
        raise typer.Exit(130) from stopped


def train(**flags: Any) -> None:
    """Train a model on your text: tokenizer, model, training, samples, all in one directory."""
    from omnima.training.launch import train as launch
    from omnima.training.verify import verdict, verify_resume

    own = {name: flags.pop(name) for name in _OWN}
    with stopping():
        if own["repeat"]:
            _repeat(flags, own)
            return
        recipe = Recipe.from_layers(flags, own["set"] or (), own["config"])
        if own["verify_resume"]:
            result = verify_resume(recipe)
            print_json(result) if own["json"] else typer.echo(verdict(result))
            raise typer.Exit(0 if result["identical"] else 1)
        if own["find_lr"]:
            _find_lr(recipe, own["json"])
            return
        run = launch(recipe, resume=own["resume"], overwrite=own["overwrite"])
    if own["json"]:
        print_json(run.summary)
        return
    print_facts(run.summary)
    for sample in run.samples:
        typer.echo(f"\n{sample}")


def take_flags(command: Any, own: list[inspect.Parameter]) -> None:
    """Give a command the flags of every recipe key, and its own.

    Typer reads a signature: this one is made from the schema, so that flags and recipes cannot
    differ.
    """
    keys = [flag_of(field) for name, field in Recipe.schema().items() if name not in _NOT_FLAGS]
    command.__signature__ = inspect.Signature([*keys, *own])
    command.__annotations__ = {each.name: each.annotation for each in [*keys, *own]}


def _repeat(flags: dict[str, Any], own: dict[str, Any]) -> None:
    from omnima.training.repeat import repeat

    if contrary := [f"--{name}" for name in _NOT_WITH_REPEAT if own[name.replace("-", "_")]]:
        raise ConfigError(
            f"--repeat does a run again as it was, from its beginning: leave out {contrary[0]}, or "
            "give the run's directory to --config."
        )
    run, found = repeat(own["repeat"], flags, own["set"] or (), overwrite=own["overwrite"])
    if own["json"]:
        print_json(found.as_dict())
    else:
        print_facts(run.summary)
        typer.echo(found.sentence())
    raise typer.Exit(0 if found.identical else 1)


def _find_lr(recipe: Recipe, as_json: bool) -> None:
    from dataclasses import asdict

    from omnima.training.lr_finder import find_lr, sentence

    found = find_lr(recipe)
    print_json(asdict(found)) if as_json else typer.echo(sentence(found))


_OWN_PARAMETERS = [
    own_flag("config", str | None, None, "a YAML recipe or a run's directory; flags override it"),
    own_flag("set", list[str] | None, None, "any recipe key or model field, as key=value"),
    own_flag(
        "repeat",
        str | None,
        None,
        "repeat the run in this directory into --out and compare the results",
    ),
    own_flag("resume", bool, False, "continue the run in --out from its newest valid checkpoint"),
    own_flag("overwrite", bool, False, "replace a run that is already in --out"),
    own_flag("verify_resume", bool, False, "prove that this run resumes bit for bit, then leave"),
    own_flag("find_lr", bool, False, "try rising learning rates, suggest one, then leave"),
    own_flag("json", bool, False, "print the result as one JSON object"),
]
_OWN = [each.name for each in _OWN_PARAMETERS]
take_flags(train, _OWN_PARAMETERS)
