"""Results on standard output: one JSON object with --json, else lines for people."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType


Json = Annotated[bool, typer.Option("--json", help="print the result as one JSON object")]


def print_result(result: dict[str, Any], json: bool) -> None:
    """Write a result as one JSON object, or as lines for people."""
    print_json(result) if json else print_facts(result)


def print_json(result: dict[str, Any]) -> None:
    """Write exactly one JSON object; numbers that JSON lacks (infinite, not a number) become
    null.
    """
    text = json.dumps(_plain(result), ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def print_facts(result: dict[str, Any], indent: int = 0) -> None:
    """Write a nested result as aligned lines."""
    width = max((len(str(key)) for key in result), default=0)
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{' ' * indent}{key}")
            print_facts(value, indent + 2)
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            for number, each in enumerate(value, start=1):
                print(f"{' ' * indent}{key} {number}")
                print_facts(each, indent + 2)
        elif isinstance(value, list):
            print(f"{' ' * indent}{key!s:<{width}}  {', '.join(said(each) for each in value)}")
        else:
            print(f"{' ' * indent}{key!s:<{width}}  {said(value)}")


def said(value: Any) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value)
    return str(value)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.1f}".removesuffix(".0")
    # Four decimals, or four digits of what is smaller than that.
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-2 else f"{value:.4g}"


def print_table(*parts: RenderableType) -> None:
    """Write tables of Rich as plain text, as wide as the terminal or 120 columns."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False, soft_wrap=False).print(*parts, sep="\n")
