"""Every public error has its entry in the documentation: what it is, why, and what to do."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import omnima

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "errors.md"


def public_errors() -> dict[str, type[BaseException]]:
    """Those of omnima.errors, and those that other public modules export."""
    found = {name: each for name, each in vars(omnima.errors).items() if inspect.isclass(each)}
    for name in omnima.__all__:
        module = getattr(omnima, name)
        for public in getattr(module, "__all__", ()) if inspect.ismodule(module) else ():
            found[public] = getattr(module, public)
    return {
        name: each
        for name, each in found.items()
        if inspect.isclass(each) and issubclass(each, BaseException)
    }


def entries() -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def test_there_are_errors() -> None:
    assert {"OmnimaError", "ConfigError", "ExportError", "WrongAnswer"} <= set(public_errors())
    assert importlib.import_module("omnima.errors").__doc__


@pytest.mark.parametrize("name", sorted(public_errors()))
def test_every_error_has_its_entry(name: str) -> None:
    entry = entries().get(name)
    assert entry is not None, f"docs/how-to/errors.md lacks a section '## {name}': what, why, do"
    assert "**What.**" in entry and "what to do.**" in entry.lower() and "```python" in entry


def test_every_entry_is_an_error_that_there_is() -> None:
    assert set(entries()) == set(public_errors())
