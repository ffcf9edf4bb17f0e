"""What a step of cleaning is: documents in, documents out, everything counted."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from omnima.errors import ConfigError


@dataclasses.dataclass
class Counts:
    """What one step did."""

    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed: int = 0
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)  # documents by reason
    found: Counter[str] = dataclasses.field(default_factory=Counter)  # what was met, by kind
    seconds: float = 0.0

    def arrives(self, text: str) -> None:
        self.documents_in += 1
        self.bytes_in += utf8_size(text)

    def leaves(self, text: str) -> None:
        self.documents_out += 1
        self.bytes_out += utf8_size(text)

    def as_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "dropped": dict(sorted(self.dropped.items())),
            "found": dict(sorted(self.found.items())),
            "seconds": round(self.seconds, 3),
        }


def utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


class Step(ABC):
    """One step of a pipeline. Subclasses are frozen dataclasses whose fields are its options."""

    name: ClassVar[str]
    meaning: ClassVar[str]

    @abstractmethod
    def run(self, documents: Iterator[str], counts: Counts, workplace: Path) -> Iterator[str]:
        """Yield what is left of the documents; `workplace` is a folder for temporary files."""

    def prepare(self) -> None:
        """Load what the step needs and check it, so that a bad setting fails before any work."""
        return

    def depends_on(self) -> dict[str, str]:
        """What else the result depends on: versions of libraries, hashes of files."""
        return {}

    def options(self) -> dict[str, Any]:
        """The options by name, ready for JSON."""
        values = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.init:
                value = getattr(self, field.name)
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values


class TextStep(Step):
    """A step that looks at each document by itself."""

    @abstractmethod
    def apply(self, text: str, counts: Counts) -> str | None:
        """The text as it goes on, or None, with the reason counted in ``counts.dropped``."""

    def run(self, documents: Iterator[str], counts: Counts, workplace: Path) -> Iterator[str]:
        for text in documents:
            counts.arrives(text)
            started = time.perf_counter()
            result = self.apply(text, counts)
            counts.seconds += time.perf_counter() - started
            if result is None:
                continue
            if not result or result.isspace():
                counts.dropped["nothing left"] += 1
                continue
            counts.changed += result is not text and result != text
            counts.leaves(result)
            yield result


_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "tuple[str, ...]": "a list of texts",
    "dict[int, float]": "a mapping of n to a share",
}


def read_options(step: type[Step], given: Any, where: str) -> Step:
    """Make a step of the options that a recipe gives.

    Raises
    ------
    ConfigError
        If an option is unknown, of the wrong kind or out of bounds.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: options are a mapping of names to values, not {given!r}.")
    known = {f.name: f for f in dataclasses.fields(step) if f.init}  # type: ignore[arg-type]
    values = {}
    for key, value in given.items():
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.0)
            hint = f' The nearest is "{near[0]}".' if near else " It has no options."
            raise ConfigError(f'{where}: unknown option "{key}".{hint}')
        values[str(key)] = _read(str(known[key].type), value, f"{where}: {key}")
    try:
        return step(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _read(kind: str, value: Any, where: str) -> Any:
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if plain == "bool" and isinstance(value, bool):
        return value
    if plain == "int" and number and value == int(value):
        return int(value)
    if plain == "float" and number:
        return float(value)
    if plain == "str" and isinstance(value, str):
        return value
    if plain == "tuple[str, ...]" and isinstance(value, (str, list, tuple)):
        texts = (value,) if isinstance(value, str) else tuple(value)
        if all(isinstance(each, str) for each in texts):
            return texts
    if plain == "dict[int, float]" and isinstance(value, Mapping):
        shares = all(isinstance(each, (int, float)) for each in value.values())
        if shares and all(isinstance(n, int) for n in value):
            return {int(n): float(share) for n, share in value.items()}
    raise ConfigError(f"{where} is {value!r}; expected {_EXPECTED[plain]}.")


def check_between(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    """Refuse a number out of its bounds; None is no number and passes."""
    if value is not None and not low <= value <= high:
        bounds = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise ConfigError(f"{name} is {value:g}; expected {bounds}.")
