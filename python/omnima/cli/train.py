"""`omnima train`: from raw text to a model. Its flags are the recipe's keys."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from omnima.cli.output import print_facts, print_json
from omnima.training.recipe import Recipe
from omnima.training.schema import Field

_AT_ONCE = "Stopped at once. The same command with --resume goes on from what is on disk."
_NOT_FLAGS = ("model",)  # set with --set model.FIELD=value


def _flag(field: Field) -> inspect.Parameter:
    kind: Any = list[str] if field.kind is tuple else field.kind
    meaning = field.meaning
    if field.choices:
        meaning += f": {', '.join(field.choices)}"
    if field.default not in (None, (), ""):
        meaning += f" [default: {field.default}]"
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(None, field.flag, help=meaning, show_default=False),
        annotation=kind | None,
    )


def _own(name: str, kind: Any, default: Any, meaning: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    option = typer.Option(default, flag, help=meaning, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def train(**flags: Any) -> None:
    """Train a model on your text: tokenizer, model, training, samples, all in one directory."""
    from omnima.training.launch import train as launch
    from omnima.training.signals import RunInterrupted
    from omnima.training.verify import verdict, verify_resume

    own = {name: flags.pop(name) for name in _OWN}
    recipe = Recipe.from_layers(flags, own["set"] or (), own["config"])
    try:
        if own["verify_resume"]:
            result = verify_resume(recipe)
            print_json(result) if own["json"] else typer.echo(verdict(result))
            raise typer.Exit(0 if result["identical"] else 1)
        run = launch(recipe, resume=own["resume"], overwrite=own["overwrite"])
    except RunInterrupted as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(130) from stopped
    except KeyboardInterrupt as stopped:  # while preparing, or a second one while saving
        typer.echo(_AT_ONCE, err=True)
        raise typer.Exit(130) from stopped
    if own["json"]:
        print_json(run.summary)
        return
    print_facts(run.summary)
    for sample in run.samples:
        typer.echo(f"\n{sample}")


_PARAMETERS = [
    *(_flag(field) for name, field in Recipe.schema().items() if name not in _NOT_FLAGS),
]
_OWN_PARAMETERS = [
    _own("config", str | None, None, "a YAML recipe; flags and --set go before it"),
    _own("set", list[str] | None, None, "any recipe key or model field, as key=value"),
    _own("resume", bool, False, "continue the run in --out from its newest valid checkpoint"),
    _own("overwrite", bool, False, "replace a run that is already in --out"),
    _own("verify_resume", bool, False, "prove that this run resumes bit for bit, then leave"),
    _own("json", bool, False, "print the result as one JSON object"),
]
_OWN = [each.name for each in _OWN_PARAMETERS]
# Typer reads a signature: this one is made from the schema, so that flags and recipes cannot
# differ.
train.__signature__ = inspect.Signature([*_PARAMETERS, *_OWN_PARAMETERS])  # type: ignore[attr-defined]
train.__annotations__ = {each.name: each.annotation for each in [*_PARAMETERS, *_OWN_PARAMETERS]}
