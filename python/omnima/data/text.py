"""Text files as documents: UTF-8, whole files, or parts between separator lines.

A file is one document, unless it holds form feeds or lines that read ``<|endoftext|>``: these
separate documents. So does every line that matches ``document_break``, the heading of a chapter for
example, which begins the next one. Files ending in ``.gz`` are read through gzip.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from omnima.data.base import PIECE_BYTES, OnError, Piece, Source
from omnima.errors import ConfigError, DataError

SEPARATOR = b"<|endoftext|>"
_BORDER = r"\f|^<\|endoftext\|>[ \t\r]*(?:\n|\Z)"


def open_binary(path: Path) -> BinaryIO:
    """Open a plain or gzip-compressed file for reading."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def whole_gzip(path: Path) -> Iterator[None]:
    """Say it in words when a compressed file is damaged or cut short."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: not a whole gzip file ({error}); fetch it again or unpack it by hand."
        ) from error


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of whole lines (only a very long line is cut, between characters)."""
    rest = b""
    with whole_gzip(path), open_binary(path) as file:
        while block := file.read(PIECE_BYTES):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            if cut == 0 and len(block) >= 2 * PIECE_BYTES:
                cut = character_border(block)
            if cut:
                yield block[:cut]
            rest = block[cut:]
    if rest:
        yield rest


def character_border(block: bytes) -> int:
    """The last position of a block that does not split a UTF-8 character."""
    for back in range(1, min(4, len(block)) + 1):
        byte = block[-back]
        if byte >= 0xC0:  # the first byte of a character of several
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(block) - back if length > back else len(block)
        if byte < 0x80:
            break
    return len(block)


def lone_surrogate(text: str) -> str | None:
    """Where a text holds half of a surrogate pair (JSON can write one, UTF-8 cannot), or None.

    >>> lone_surrogate("a\\ud800")
    "invalid Unicode at position 1: '\\\\ud800' is half of a surrogate pair"
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        return f"invalid Unicode at position {error.start}: {half} is half of a surrogate pair"
    return None


class TextSource(Source):
    """Documents of plain text files, read in the order given; see above for `document_break`."""

    def __init__(
        self, paths: list[Path], on_error: OnError = "raise", document_break: str | None = None
    ) -> None:
        super().__init__(on_error)
        self.paths = paths
        self.document_break = document_break
        self._border = document_border(document_break)

    def identity(self) -> str:
        broken = "" if self.document_break is None else f" {self.document_break!r}"
        return f"text {self.on_error}{broken}\n" + "\n".join(str(path) for path in self.paths)

    def files(self) -> list[Path]:
        return self.paths

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        for path in self.paths:
            yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Piece]:
        parts = self._parts(path)
        head = []
        for text, ends in parts:
            head.append((text, ends))
            if text and not text.isspace():
                break
        else:
            how = "holds nothing but white space" if any(text for text, _ in head) else "is empty"
            self._reject(f"{path}: the file {how}. Take it off the list or give it some text.")
            return
        waiting: str | None = None  # held back until it is known whether more of it follows
        for text, ends in chain(head, parts):
            if text:
                if waiting is not None:
                    yield Piece(waiting, last=False)
                waiting = text
            if ends and waiting is not None:
                yield Piece(waiting)
                waiting = None
        if waiting is not None:
            yield Piece(waiting)

    def _parts(self, path: Path) -> Iterator[tuple[str, bool]]:
        """Yield (text, whether a separator follows)."""
        line = 1
        for block in read_blocks(path):
            if line == 1 and block.startswith(b"\xef\xbb\xbf"):
                block = block[3:]
            text = self._decode(path, block, line)
            line += block.count(b"\n")
            if self.document_break is None and b"\f" not in block and SEPARATOR not in block:
                yield text, False
                continue
            *whole, rest = split_documents(text, self._border)
            for part in whole:
                yield part, True
            yield rest, False

    def _decode(self, path: Path, block: bytes, first_line: int) -> str:
        try:
            return block.decode("utf-8")
        except UnicodeDecodeError:
            kept = []
            for number, line in enumerate(io.BytesIO(block), first_line):
                try:
                    kept.append(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    self._reject(
                        f"{path}, line {number}: byte {line[error.start]:#04x} at column "
                        f"{error.start + 1} is not UTF-8. Convert the file, for example with "
                        "`iconv -f latin1 -t utf-8`."
                    )
            return "".join(kept)


def document_border(document_break: str | None) -> re.Pattern[str]:
    """What lies between documents; before a line that matches `document_break` that is nothing.

    Raises
    ------
    ConfigError
        If `document_break` is no regular expression.
    """
    try:
        heading = "" if document_break is None else f"|^(?=.*?(?:{document_break}))"
        re.compile(document_break or "")
        return re.compile(_BORDER + heading, re.MULTILINE)
    except re.error as error:
        raise ConfigError(
            f"document_break is {document_break!r}, which is no regular expression ({error}); "
            "write one as in Python, such as ^CHAPTER or ^[IVXLC]+\\.$"
        ) from error


def split_documents(text: str, border: re.Pattern[str]) -> list[str]:
    """The parts of a text between its borders; the last one may go on in the next text."""
    parts, begin = [], 0
    for match in border.finditer(text):
        parts.append(text[begin : match.start()])
        begin = match.end()
    return [*parts, text[begin:]]
