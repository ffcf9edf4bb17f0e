"""Files of conversations: found, their formats told, their examples read in order."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omnima.data.base import OnError
from omnima.data.conversations.examples import Example, PlainText
from omnima.data.conversations.formats import Format, format_of
from omnima.data.conversations.records import Record, read_records
from omnima.data.text import TextSource
from omnima.errors import ConfigError, DataError

JSON = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
TEXT = (".txt", ".md", ".txt.gz", ".md.gz")


@dataclass
class Reading:
    """The examples of files, and what was found while reading them.

    Parameters
    ----------
    paths
        The files, in order.
    on_error
        ``"raise"`` for a broken record, or ``"skip"`` to leave it out and count it.

    Attributes
    ----------
    formats
        Of each file, once it has been read: the name of its format, and how many records of it.
    skipped
        Broken records that were left out.
    first_error
        What was wrong with the first of them.
    """

    paths: Sequence[Path]
    on_error: OnError = "raise"
    formats: dict[Path, tuple[str, int]] = field(default_factory=dict)
    skipped: int = 0
    first_error: str | None = None

    def __iter__(self) -> Iterator[Example]:
        self.formats, self.skipped, self.first_error = {}, 0, None
        for path in self.paths:
            if path.name.lower().endswith(JSON):
                yield from self._records(path)
            else:
                yield from self._texts(path)

    def _texts(self, path: Path) -> Iterator[Example]:
        count = 0
        for text in TextSource([path]).documents():
            count += 1
            yield PlainText(text, str(path))
        self.formats[path] = ("text", count)

    def _records(self, path: Path) -> Iterator[Example]:
        form: Format | None = None
        first, count = 0, 0
        for record in read_records(path):
            try:
                found = format_of(record.value)
                if form is not None and found is not form:
                    raise DataError(
                        f"the format is {found.name}, but line {first} began with {form.name}: "
                        "one format a file. Put them into files of their own"
                    )
                form, first = found, first or record.line
                examples = list(form.read(record.value, record.place))
            except DataError as error:
                self._reject(record, error)
                continue
            count += 1
            yield from examples
        if form is None or not count:
            raise DataError(f"{path}: every record is broken. The first: {self.first_error}")
        self.formats[path] = (form.name, count)

    def _reject(self, record: Record, error: DataError) -> None:
        message = f"{record.place}: {str(error).rstrip('.')}."
        if self.on_error == "raise":
            raise DataError(
                message + ' Mend the record, or pass on_error="skip" to leave such records out.'
            ) from error
        self.skipped += 1
        self.first_error = self.first_error or message

    def sentences(self) -> list[str]:
        """Say of each file its format and its records."""
        said = [
            f"{path.name}: {count:,} records, format {name}."
            for path, (name, count) in self.formats.items()
        ]
        if self.skipped:
            said.append(
                f"{self.skipped:,} broken records were left out. The first: {self.first_error}"
            )
        return said


def read_examples(data: str | Path | Sequence[str | Path], on_error: OnError = "raise") -> Reading:
    """Open files of conversations, instructions, pairs or text.

    Parameters
    ----------
    data
        Files (``.json``, ``.jsonl``, plain text, each also with ``.gz``), globs or directories, or
        a list of these.
    on_error
        ``"raise"`` for a broken record, naming file and line, or ``"skip"``.

    Raises
    ------
    DataError
        There is no such file.

    Examples
    --------
    >>> import json, pathlib
    >>> record = {"prompt": "2 + 2 =", "completion": " 4"}
    >>> written = pathlib.Path("sums.jsonl").write_text(json.dumps(record))
    >>> [example.completion for example in read_examples("sums.jsonl")]
    [' 4']
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f'on_error is {on_error!r}; expected "raise" or "skip"')
    given = [data] if isinstance(data, (str, Path)) else list(data)
    if not given:
        raise DataError("no data: name a file of conversations.")
    paths = [path for each in given for path in _files(str(each))]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise DataError(f"{twice[0]} is named twice: its examples would count twice.")
    return Reading(paths, on_error)


def _files(spec: str) -> list[Path]:
    path = Path(spec).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            each
            for each in sorted(path.rglob("*"))
            if each.is_file() and each.name.lower().endswith((*JSON, *TEXT))
        ]
    else:
        found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
        found = [each for each in found if each.is_file()]
    if not found:
        raise DataError(
            f"there is no file {spec!r}. Name files (.json, .jsonl, .txt, each also with .gz), "
            "globs or directories that hold some."
        )
    return found
