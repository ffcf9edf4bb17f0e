"""The flags that name a model's shape and its batches, shared by the commands that measure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from omnima.errors import ConfigError

Markdown = Annotated[bool, typer.Option("--markdown", help="print a Markdown table")]


def _shape(
    preset: Annotated[
        str | None,
        typer.Option(help="a preset, or a shape of the tables: bench-1.9m, bench-13.9m, …"),
    ] = None,
    params: Annotated[str | None, typer.Option(help="a number of parameters, such as 20M")] = None,
    vocab_size: Annotated[int | None, typer.Option(help="tokens of the vocabulary")] = None,
    context: Annotated[int | None, typer.Option(help="tokens in a row")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows of a batch")] = None,
) -> dict[str, Any]:
    from omnima.training.recipe import parse_count

    return {
        "preset": preset,
        "params": None if params is None else parse_count(params),
        "vocab_size": vocab_size,
        "context": context,
        "batch_size": batch_size,
    }


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def refuse(command: str, task: str, flags: dict[str, Any]) -> None:
    """Refuse flags that are other tasks' own."""
    for name in given(flags):
        raise ConfigError(
            f"--{name.replace('_', '-')} says nothing to {command} {task}: "
            f"omnima {command} --help tells which flags are whose."
        )


def with_shape(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of a shape; it takes them as `**shape`, read and ready to pass on.

    Typer reads the signature that this sets.
    """
    flags = inspect.signature(_shape, eval_str=True).parameters
    first, *own = inspect.signature(command, eval_str=True).parameters.values()

    def run(**given: Any) -> None:
        shape = _shape(**{name: given.pop(name) for name in flags})
        command(**given, **shape)

    named = [each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD]
    both = [first, *flags.values(), *named]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in both}
    return run
