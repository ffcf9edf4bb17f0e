"""Runs a recipe of cleaning: a stream through all steps, into one file with its record."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, cast

from omnima._durable import sync_directory, write_durably
from omnima.data.base import Source, hash_file
from omnima.data.cleaning.characters import Control, Unicode
from omnima.data.cleaning.duplicates import Exact, Near
from omnima.data.cleaning.evaluation import Evaluation
from omnima.data.cleaning.language import Language
from omnima.data.cleaning.personal import Personal
from omnima.data.cleaning.quality import Length, Repetition, Symbols
from omnima.data.cleaning.record import FORMAT, Cleaned, cleaned_record, record_path
from omnima.data.cleaning.step import Counts, Step, read_options, utf8_size
from omnima.data.described import read_description
from omnima.errors import ConfigError, DataError

STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        Unicode,
        Control,
        Length,
        Repetition,
        Symbols,
        Personal,
        Language,
        Evaluation,
        Exact,
        Near,
    )
}
# Recipes by name; a recipe file has the same form under `steps`.
RECIPES: dict[str, list[Any]] = {
    "prose": [
        "unicode",
        "control",
        "length",
        "exact",
        "repetition",
        "symbols",
        "personal",
        "near",
    ],
    "code": ["unicode", "control", "exact", "personal", "near"],
    "duplicates": ["exact", "near"],
}

Progress = Callable[[int, int], object]  # documents and bytes read


class Cleaning:
    """A described pipeline.

    Parameters
    ----------
    steps : list
        Names of steps, or mappings of one name to its options.
    where : str
        How messages call the description.

    Examples
    --------
    >>> cleaning = Cleaning(["control", {"length": {"min_characters": 5}}])
    >>> list(cleaning.apply(["a\\x07 longer text", "short"[:4]]))
    ['a longer text']
    """

    def __init__(self, steps: list[Any], where: str = "the recipe") -> None:
        if not isinstance(steps, list) or not steps:
            raise ConfigError(f"{where}: a list of steps is expected; there are {_known()}.")
        self.steps = [_read_step(each, f"{where}, step {n}") for n, each in enumerate(steps, 1)]

    @classmethod
    def open(cls, recipe: str | Path) -> Cleaning:
        """Read a recipe: a YAML file with a list under ``steps``, or a name of `RECIPES`."""
        if str(recipe) in RECIPES:
            return cls(RECIPES[str(recipe)], f"the recipe {recipe}")
        path = Path(recipe).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"There is no recipe of cleaning {str(recipe)!r}: give a YAML file or one of "
                f"{', '.join(RECIPES)}."
            )
        description = read_description(path, "recipe")
        for key in description:
            if key != "steps":
                raise ConfigError(f'The recipe {path}: unknown key "{key}"; expected "steps".')
        return cls(cast(Any, description.get("steps")), f"the recipe {path}")

    def described(self) -> list[dict[str, Any]]:
        """Every step with all its options, and what else it depends on."""
        described = []
        for step in self.steps:
            entry: dict[str, Any] = {"step": step.name, "options": step.options()}
            if depends := step.depends_on():
                entry["depends_on"] = depends
            described.append(entry)
        return described

    def fingerprint(self) -> str:
        """A sha256 of the steps, their options and the versions they depend on."""
        text = json.dumps({"format": FORMAT, "steps": self.described()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def prepare(self) -> None:
        """Load what the steps need; a missing library or file fails here, before any work."""
        for step in self.steps:
            step.prepare()

    def run(self, documents: Iterator[str], workplace: Path) -> tuple[Iterator[str], list[Counts]]:
        """The stream behind the last step, and the counts that fill as it is read."""
        counts = [Counts() for _ in self.steps]
        for step, each in zip(self.steps, counts):
            documents = step.run(documents, each, workplace)
        return documents, counts

    def apply(self, documents: Any, workplace: Path | None = None) -> Iterator[str]:
        """Yield what is left of documents, without a file or a report."""
        import tempfile

        self.prepare()
        with tempfile.TemporaryDirectory(prefix="omnima-clean-", dir=workplace) as place:
            yield from self.run(iter(documents), Path(place))[0]


def _known() -> str:
    return ", ".join(STEPS)


def _read_step(given: Any, where: str) -> Step:
    if isinstance(given, str):
        given = {given: None}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ConfigError(
            f"{where}: {given!r} is no step; write a name, or a name with its options, such as "
            "length: {min_characters: 50}."
        )
    name, options = next(iter(given.items()))
    if name not in STEPS:
        near = get_close_matches(str(name), STEPS, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f'{where}: unknown step "{name}". The nearest is "{near}"; there are {_known()}.'
        )
    return read_options(STEPS[name], options, f"{where} ({name})")


def clean(
    source: Source,
    recipe: Cleaning | str | Path,
    out: str | Path,
    progress: Progress | None = None,
) -> Cleaned:
    """Clean a source into a file of JSON lines, with a record beside it.

    The file (``.jsonl`` or ``.jsonl.gz``) is whole or not there. Documents are streamed; only the
    step ``near`` puts them aside, in the folder of the file.

    Raises
    ------
    ConfigError
        If the recipe is wrong, or the file cannot be written.
    DataError
        If the source holds bad records, or nothing is left of it.
    """
    cleaning = recipe if isinstance(recipe, Cleaning) else Cleaning.open(recipe)
    path = Path(out).expanduser().resolve()
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"out is {str(out)!r}; name a file that ends in .jsonl or .jsonl.gz")
    if path in source.files():
        raise ConfigError(f"{path} is read and would be written; choose another file.")
    cleaning.prepare()
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = _write_aside(source, cleaning, path, aside, progress)
        record_path(path).unlink(missing_ok=True)  # never a record beside another file's text
        os.replace(aside, path)
        write_durably(record_path(path), json.dumps(record, indent=1, ensure_ascii=False).encode())
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"Cleaning into {path} failed: {error}.") from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            aside.unlink()
    return Cleaned(path, record)


def clean_once(
    source: Source,
    recipe: Cleaning | str | Path,
    out: str | Path,
    progress: Progress | None = None,
) -> Cleaned:
    """Clean a source as `clean` does, unless the file is there already, made by the same recipe of
    the same data, and unchanged since.
    """
    cleaning = recipe if isinstance(recipe, Cleaning) else Cleaning.open(recipe)
    path = Path(out).expanduser().resolve()
    if path.is_file():
        record = cleaned_record(path, hash_file(path))
        if (
            record is not None
            and record["cleaning"] == cleaning.fingerprint()
            and record["source"]["sha256"] == source.fingerprint()
        ):
            return Cleaned(path, record)
    return clean(source, cleaning, path, progress)


def _write_aside(
    source: Source, cleaning: Cleaning, path: Path, aside: Path, progress: Progress | None
) -> dict[str, Any]:
    """Write the documents that are left, and return the record of all that was done."""
    started = time.perf_counter()
    before = source.fingerprint()
    read = Counts()
    with aside.open("wb") as file:
        documents, counts = cleaning.run(_counted(source, read, progress), path.parent)
        left = _write(documents, file, path.suffix == ".gz")
        file.flush()
        os.fsync(file.fileno())
    if not left.documents_out:
        raise DataError(_nothing_left(read, counts, cleaning))
    if source.fingerprint() != before:
        raise DataError("the data changed while it was being cleaned; run again.")
    steps = zip(cleaning.described(), counts)
    return {
        "format": FORMAT,
        "cleaning": cleaning.fingerprint(),
        "source": {"identity": source.identity(), "sha256": before, "skipped": source.skipped},
        "documents_in": read.documents_in,
        "bytes_in": read.bytes_in,
        "documents_out": left.documents_out,
        "bytes_out": left.bytes_out,
        "seconds": round(time.perf_counter() - started, 3),
        "sha256": hash_file(aside),
        "steps": [{**described, **each.as_dict()} for described, each in steps],
    }


def _counted(source: Source, read: Counts, progress: Progress | None) -> Iterator[str]:
    for text in source.documents():
        read.arrives(text)
        if progress is not None and read.documents_in % 256 == 0:
            progress(read.documents_in, read.bytes_in)
        yield text
    if progress is not None:
        progress(read.documents_in, read.bytes_in)


def _write(documents: Iterator[str], file: BinaryIO, packed: bool) -> Counts:
    left = Counts()
    # No name and no time in the gzip header: the same documents give the same bytes.
    target = gzip.GzipFile("", "wb", 6, file, mtime=0) if packed else file
    for text in documents:
        left.documents_out += 1
        left.bytes_out += utf8_size(text)
        target.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
    if packed:
        target.close()
    return left


def _nothing_left(read: Counts, counts: list[Counts], cleaning: Cleaning) -> str:
    if not read.documents_in:
        return "there is no document in the data; give at least one with some text."
    drops = [
        f"{step.name} dropped {sum(each.dropped.values())}"
        for step, each in zip(cleaning.steps, counts)
        if each.dropped
    ]
    return (
        f"nothing is left of {read.documents_in} documents ({', '.join(drops)}); loosen the "
        "recipe's bounds."
    )
