"""The generated pages of the reference: the commands, the public names and the architectures."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

import typer.main

import omnima
from omnima.cli.app import app
from omnima.hub.architectures import REGISTRY


def commands_page() -> str:
    """Every command with its options, from the Typer application."""
    group: Any = typer.main.get_command(app)
    parts = ["# Commands\n\nProgress goes to standard error, the result to standard output.\n"]
    for name, command in commands_of(group):
        parts.append(f"## omnima {name}\n\n{(command.help or '').strip()}\n")
        for heading, parameters in panels_of(command).items():
            parts.append(f"### {heading}\n" if heading else "")
            parts.append("| option | value | meaning |\n| --- | --- | --- |")
            parts += [row_of(each) for each in parameters]
            parts.append("")
    return "\n".join(parts) + "\n"


def panels_of(command: Any) -> dict[str, list[Any]]:
    """The parameters of a command under the headings of its help, first those without one."""
    panels: dict[str, list[Any]] = {"": []}
    for each in command.params:
        panels.setdefault(getattr(each, "rich_help_panel", None) or "", []).append(each)
    return {heading: found for heading, found in panels.items() if found}


def row_of(parameter: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        flags = f"`{(parameter.name or '').upper()}`"
    meaning = cell(getattr(parameter, "help", None) or "")
    return f"| {flags} | {cell(value_of(parameter))} | {meaning} |"


def commands_of(group: Any, before: str = "") -> list[tuple[str, Any]]:
    """The commands of a group with their names, those of groups below it as `data clean`."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        below = getattr(command, "commands", None)
        found += commands_of(command, f"{before}{name} ") if below else [(before + name, command)]
    return found


def value_of(parameter: Any) -> str:
    """The kind of a parameter's value (Typer's description, or click's); empty for a switch."""
    if getattr(parameter, "is_flag", False):
        return ""
    kind = getattr(parameter, "type", None)
    if kind is None:
        kind = parameter.type_descriptor.annotation
    return str(getattr(kind, "name", None) or getattr(kind, "__name__", kind))


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def architectures_page() -> str:
    """Every architecture that is read and written, from the registry."""
    parts = [
        "# Architectures\n",
        "Models of these architectures load, run and train with the numbers of transformers",
        "(logits within 1e-5 of the largest in tests with drawn weights), and are saved as what",
        "they are. A model is saved as the first of them that it is exactly.\n",
        "| architecture | `model_type` | GGUF | what it is |\n| --- | --- | --- | --- |",
    ]
    for each in REGISTRY:
        about = inspect.getdoc(sys.modules[each.write.__module__]) or ""
        form = f"`{each.gguf.arch}`" if each.gguf is not None else ""
        parts.append(f"| {each.name} | `{each.model_type}` | {form} | {cell(about)} |")
    return "\n".join(parts) + "\n"


def python_page() -> str:
    """Every public name: those of the package, then those of each public module."""
    parts = ["# Python\n"]
    names = [name for name in omnima.__all__ if not name.startswith("_")]
    objects = {name: getattr(omnima, name) for name in names}
    parts.append("## omnima\n")
    seen: set[int] = set()
    for name, value in objects.items():
        if not isinstance(value, ModuleType):
            parts.append(directive(name, value, "omnima"))
            seen.add(id(value))
    for value in objects.values():
        if isinstance(value, ModuleType):
            parts.append(module_part(value, seen))
    return "\n".join(parts) + "\n"


def module_part(module: ModuleType, seen: set[int]) -> str:
    parts = [f"## {module.__name__}\n\n{inspect.getdoc(module) or ''}\n"]
    public = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    for name in public:
        value = getattr(module, name)
        if isinstance(value, ModuleType) or id(value) in seen:
            continue
        seen.add(id(value))
        parts.append(directive(name, value, module.__name__))
    return "\n".join(parts)


def directive(name: str, value: Any, module: str) -> str:
    options = ""
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        if any(base.__module__.partition(".")[0] == "omnima" for base in value.__bases__):
            options = "\n   :inherited-members: ABC, Exception"  # ours are shown, others' are not
    elif callable(value):
        kind = "autofunction"
    else:
        shown = ", ".join(f"`{each}`" for each in value) if isinstance(value, dict) else repr(value)
        return f"`{module}.{name}`: {shown}\n"
    return f"```{{eval-rst}}\n.. {kind}:: {module}.{name}{options}\n```\n"
