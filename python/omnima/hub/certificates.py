"""What a model card says of the certificates beside a model: one line a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima.errors import DataError
from omnima.hub.strict_json import read_json_object

OF_DIRECTORY = "certificate.json"
_OF_FILE = ".certificate.json"


def certificate_path(model: Path) -> Path:
    """Where the certificate of a model lies: in its directory, or beside its file."""
    if model.is_dir():
        return model / OF_DIRECTORY
    return model.with_name(model.name + _OF_FILE)


def certificate_lines(directory: Path) -> list[str]:
    """Return a line for the certificate of a directory and for that of each GGUF file in it.

    Raises
    ------
    DataError
        A certificate is no JSON object, or a field is of a wrong type.
    """
    paths = [directory / OF_DIRECTORY, *sorted(directory.glob(f"*{_OF_FILE}"))]
    lines = []
    for path in paths:
        if path.is_file():
            subject = "" if path.name == OF_DIRECTORY else path.name.removesuffix(_OF_FILE) + ": "
            lines.append(subject + _line(read_json_object(path), path))
    return lines


def _line(found: Mapping[str, Any], path: Path) -> str:
    def take(name: str, *kinds: type) -> Any:
        value = found.get(name)
        if value is not None and not isinstance(value, kinds):
            raise DataError(f'{path}: "{name}" is {value!r}; the certificate is damaged.')
        return value

    passed = take("passed", bool)
    tool = " ".join(filter(None, (take("against", str), take("version", str))))
    if passed is None or not tool:
        return "not compared with another tool: none was installed."
    if not passed:
        reasons = [str(each) for each in take("reasons", list) or ["no reason is given"]]
        return f"{tool} finds another model: {'; '.join(reasons)}."
    parts = [f"{tool} reads the same model ({take('dtype', str) or 'numbers of unknown kind'})"]
    names = ("difference", "tolerance", "largest_difference")
    difference, tolerance, largest = (take(name, int, float) for name in names)
    if difference is not None:
        most = "" if tolerance is None else f" (allowed: {tolerance:.1e})"
        parts.append(f"logits apart by {difference:.1e} of their spread, root mean square{most}")
    if largest is not None:
        parts.append(f"the largest difference {largest:.1e} of it")
    choice = take("same_choice", int, float)
    if choice is not None:
        parts.append(f"the same likeliest token in {choice:.2%} of places")
    greedy, prompts = take("greedy_equal", int), take("prompts", int)
    if greedy is not None and prompts is not None:
        parts.append(f"the same greedy text for {greedy} of {prompts} prompts")
    ours, theirs = (take(name, int, float) for name in ("perplexity", "perplexity_there"))
    if ours is not None and theirs is not None:
        parts.append(f"perplexity {theirs:.4g} there, {ours:.4g} here")
    return "; ".join(parts) + "."
