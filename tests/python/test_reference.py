"""The reference documents every public name: those of omnima.__all__ and of each public module."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import omnima

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Not for callers: the commands are documented as commands, __main__ and _… are ours.
PRIVATE = {"cli", "__main__", "templates"}


def pages() -> ModuleType:
    found = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    text: str = pages().python_page()
    return text


def public_modules() -> list[str]:
    names = {each.name for each in pkgutil.iter_modules(omnima.__path__)}
    return sorted(name for name in names - PRIVATE if not name.startswith("_"))


def test_every_public_module_is_exported_or_holds_only_an_exported_class() -> None:
    exported = {omnima._EXPORTS[name] or f"omnima.{name}" for name in omnima._EXPORTS}
    assert {f"omnima.{name}" for name in public_modules()} <= exported


def test_every_name_of_the_package_is_documented(page: str) -> None:
    for name in omnima.__all__:
        value = getattr(omnima, name)
        if isinstance(value, ModuleType):
            assert f"## {value.__name__}\n" in page
        elif not name.startswith("__"):
            assert f"omnima.{name}" in page


@pytest.mark.parametrize("name", public_modules())
def test_every_name_of_a_module_is_documented(page: str, name: str) -> None:
    module = importlib.import_module(f"omnima.{name}")
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        assert f"{module.__name__}.{public}" in page or f"omnima.{public}" in page, public
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{public} says nothing of itself"


def test_every_command_and_every_option_is_documented() -> None:
    import typer.main

    from omnima.cli.app import app

    text = pages().commands_page()
    group = typer.main.get_command(app)
    assert {"train", "data clean"} <= {name for name, _ in pages().commands_of(group)}
    for name, command in pages().commands_of(group):
        assert f"## omnima {name}\n" in text
        for each in command.params:
            for flag in each.opts:
                shown = flag.upper() if each.param_type_name == "argument" else flag
                assert f"`{shown}`" in text


def test_options_stand_under_the_headings_of_the_help() -> None:
    commands = pages().commands_page()
    train = commands.split("## omnima train\n")[1].split("\n## omnima ")[0]
    optimizer = train.split("### Optimizer\n")[1].split("###")[0]
    assert "`--weight-decay`" in optimizer and "`--steps`" not in optimizer
    assert train.index("`--resume`") < train.index("### Data")
    assert "###" not in commands.split("## omnima info\n")[1].split("\n## omnima ")[0]


def test_every_architecture_is_documented() -> None:
    from omnima.hub.architectures import REGISTRY

    page = pages().architectures_page()
    for each in REGISTRY:
        [row] = [line for line in page.splitlines() if line.startswith(f"| {each.name} ")]
        about = row.split(" | ")[3]
        assert f"`{each.model_type}`" in row and len(about) > 20
    assert page.count("| OLMo 2 (2025): ") == 1
