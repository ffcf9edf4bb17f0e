"""Records of JSON files, each with its line; what is broken is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from omnima.data.text import open_binary, read_blocks, whole_gzip
from omnima.errors import DataError

_SPACE = " \t\n\r"


class Record(NamedTuple):
    """One JSON object of a file."""

    value: dict[str, Any]
    path: Path
    line: int

    @property
    def place(self) -> str:
        """File and line, as errors name them."""
        return f"{self.path}, line {self.line}"


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a ``.json`` file (a list of objects) or of JSON lines, also gzipped.

    Raises
    ------
    DataError
        Names the file and the line: not UTF-8, no JSON, a key that stands twice, no object; or a
        file that is empty, or a damaged gzip file.
    """
    name = path.name.lower().removesuffix(".gz")
    found = False
    for value, line in _of_list(path) if name.endswith(".json") else _of_lines(path):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}, line {line}: a JSON {type(value).__name__} where an object is expected, "
                'such as {"messages": […]}.'
            )
        found = True
        yield Record(value, path, line)
    if not found:
        raise DataError(f"{path}: the file is empty. Take it off the list or fill it.")


def _of_lines(path: Path) -> Iterator[tuple[Any, int]]:
    number = 0
    rest = b""
    for block in read_blocks(path):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield from _of_line(path, line, number)
    yield from _of_line(path, rest, number + 1)


def _of_line(path: Path, line: bytes, number: int) -> Iterator[tuple[Any, int]]:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return
    text = _decode(path, line, number)
    try:
        yield json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse), number
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}). Write one "
            "whole object a line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON that can be read ({error}).") from error


def _of_list(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield the entries of one JSON list, one by one, so that each has its line."""
    with whole_gzip(path), open_binary(path) as file:
        content = file.read().removeprefix(b"\xef\xbb\xbf")
    text = _decode(path, content, 1)
    reader = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
    at, line, counted = _past_space(text, 0), 1, 0
    if at == len(text):
        return
    if text[at] != "[":
        raise DataError(
            f"{path}, line {1 + text.count(chr(10), 0, at)}: a list of objects is expected, which "
            f"begins with [, not with {text[at]!r}. One object a line is a .jsonl file."
        )
    at, first = _past_space(text, at + 1), True
    while at < len(text) and text[at] != "]":
        if not first:
            at = _past_space(text, _comma(path, text, at))
        line, counted, first = line + text.count("\n", counted, at), at, False
        try:
            value, at = reader.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})."
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line}: not JSON that can be read ({error}).") from error
        yield value, line
        at = _past_space(text, at)
    end = _past_space(text, at + 1)
    if at >= len(text) or end < len(text):
        wrong = "the list has no end" if at >= len(text) else "more follows behind the list"
        number = 1 + text.count("\n", 0, min(end, len(text)))
        raise DataError(f"{path}, line {number}: not JSON: {wrong}.")


def _comma(path: Path, text: str, at: int) -> int:
    if text[at] != ",":
        line, column = 1 + text.count("\n", 0, at), at - text.rfind("\n", 0, at)
        raise DataError(f"{path}, line {line}: not JSON (a comma is missing at column {column}).")
    return at + 1


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _decode(path: Path, content: bytes, first_line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{path}, line {line}: byte {content[error.start]:#04x} at column {column} is not "
            "UTF-8. Convert the file, for example with `iconv -f latin1 -t utf-8`."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
