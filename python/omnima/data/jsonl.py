"""JSON lines as documents: one object a line, the text under one named field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from omnima.data.base import OnError, Piece, Source
from omnima.data.fields import absent, check_text
from omnima.data.text import read_blocks
from omnima.errors import DataError


class JsonlSource(Source):
    """Documents of a ``.jsonl`` (or ``.jsonl.gz``) file; blank lines are passed over."""

    def __init__(self, path: Path, field: str = "text", on_error: OnError = "raise") -> None:
        super().__init__(on_error)
        self.path = path
        self.field = field

    def identity(self) -> str:
        return f"jsonl {self.on_error} {self.field}\n{self.path}"

    def files(self) -> list[Path]:
        return [self.path]

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        number = 0
        found = False
        rest = b""
        for block in read_blocks(self.path):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                number += 1
                if text := self._text(line, number):
                    found = True
                    yield Piece(text)
        if text := self._text(rest, number + 1):
            found = True
            yield Piece(text)
        if not found and not self.skipped:
            self._reject(f"{self.path}: the file is empty. Take it off the list or fill it.")

    def _text(self, line: bytes, number: int) -> str | None:
        if not line.strip():
            return None
        try:
            return read_field(line, self.field)
        except DataError as error:
            self._reject(f"{self.path}, line {number}: {error}")
            return None


def read_field(line: bytes, field: str) -> str:
    """The text of one JSON line.

    Raises
    ------
    DataError
        If the line is not UTF-8, not an object, or its field is absent, empty or no text.
    """
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(
            f"byte {byte:#04x} at column {error.start + 1} is not UTF-8. Convert the file first."
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON ({error.msg} at column {error.colno}). Write one whole object a line."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise DataError(f"not JSON that can be read ({error}). Mend or remove the line.") from error
    if not isinstance(record, dict):
        raise DataError(
            f"a JSON {type(record).__name__} where an object is expected, such as "
            f'{{"{field}": "…"}}. Write one object a line.'
        )
    if field not in record:
        raise absent(field, record)
    return check_text(record[field], field)
