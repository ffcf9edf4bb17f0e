"""Chat templates in the directory of a tokenizer, as transformers keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.errors import DataError
from omnima.templates.template import LARGEST, ChatTemplate, check_size

DEFAULT = "default"
FILE, FOLDER = "chat_template.jinja", "additional_chat_templates"
KEY = "chat_template"  # in tokenizer_config.json
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

Templates = dict[str, ChatTemplate]


def named(name: Any, text: Any, source: str) -> ChatTemplate:
    """Return a template whose name can be that of a file."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"{source}: {name!r} cannot name a chat template; expected letters, digits, '_', '-'"
            " and '.', such as 'tool_use'"
        )
    return ChatTemplate(text, source)


def read(directory: Path, config: Mapping[str, Any], config_file: Path) -> Templates:
    """Read the templates of a directory; files go before the config, as in transformers."""
    found: Templates = {}
    if (directory / FILE).is_file():
        found[DEFAULT] = _read(DEFAULT, directory / FILE)
    for path in sorted((directory / FOLDER).glob("*.jinja")):
        found[path.stem] = _read(path.stem, path)
    return found or from_value(config.get(KEY), f"{config_file}, {KEY}")


def template_beside(directory: Path) -> dict[str, str] | None:
    """The texts of the templates in a directory's files by name; None where there are none."""
    found = read(directory, {}, directory)
    return {name: each.text for name, each in found.items()} or None


def from_value(value: Any, source: str) -> Templates:
    """Read what a config says: one template, or a list of named ones."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: ChatTemplate(value, source)}
    if isinstance(value, Mapping):
        value = [{"name": name, "template": text} for name, text in value.items()]
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise DataError(
            f"{source}: expected a text, or a list of objects with name and template; found"
            f" {type(value).__name__}"
        )
    found: Templates = {}
    for each in value:
        name = each.get("name")
        template = named(name, each.get("template"), f"{source} {name!r}")
        if name in found:
            raise DataError(f"{source}: two chat templates are named {name!r}")
        found[name] = template
    return found


def _read(name: str, path: Path) -> ChatTemplate:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        check_size(len(content), str(path))
        return named(name, content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not valid UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: the chat template cannot be read: {error.strerror}") from None


def as_config(templates: Templates) -> dict[str, Any]:
    """What tokenizer_config.json says of templates, for programs that read no other file."""
    if not templates:
        return {}
    if list(templates) == [DEFAULT]:
        return {KEY: templates[DEFAULT].text}
    return {KEY: [{"name": name, "template": each.text} for name, each in templates.items()]}


def write(templates: Templates, directory: Path) -> None:
    """Write the templates' files, and take away those of a tokenizer that was there before."""
    paths = {
        name: directory / FILE if name == DEFAULT else directory / FOLDER / f"{name}.jinja"
        for name in templates
    }
    for path in [directory / FILE, *(directory / FOLDER).glob("*.jinja")]:
        if path not in paths.values():
            path.unlink(missing_ok=True)
    for name, path in paths.items():
        path.parent.mkdir(exist_ok=True)
        write_durably(path, templates[name].text.encode("utf-8"))
