"""Tables as documents: the text in one named column of CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.data.base import OnError, Piece, Source
from omnima.data.fields import absent, check_text
from omnima.data.text import open_binary, whole_gzip
from omnima.errors import DataError, OmnimaError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_CELL = 64 << 20  # characters in one cell; more is a quote that was never closed
_DELIMITERS = (",", ";", "\t", "|")
_ROWS = 1024  # of a Parquet file that are held at once


class CsvSource(Source):
    """The cells of one column of a ``.csv`` or ``.tsv`` file (also ``.gz``), one document each.

    The first row names the columns. The delimiter is the one of comma, semicolon, tab and bar
    with which it holds the wanted name.
    """

    def __init__(self, path: Path, field: str = "text", on_error: OnError = "raise") -> None:
        super().__init__(on_error)
        self.path = path
        self.field = field

    def identity(self) -> str:
        return f"csv {self.on_error} {self.field}\n{self.path}"

    def files(self) -> list[Path]:
        return [self.path]

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        found = False
        # The limit is the csv module's own and holds for the process; it is raised, never lowered.
        csv.field_size_limit(max(MAX_CELL, csv.field_size_limit()))
        for line, text in self._texts():
            try:
                text = check_text(_decoded(text), self.field, "column")
            except DataError as error:
                self._reject(f"{self.path}, line {line}: {error}")
                continue
            found = True
            yield Piece(text)
        if not found and not self.skipped:
            self._reject(f"{self.path}: there is no row below the header. Take it off the list.")

    def _texts(self) -> Iterator[tuple[int, str]]:
        """Yield the line where each row begins, and the cell."""
        lines = self._lines()
        header = next(lines, "")
        if not header.strip():
            raise DataError(
                f"{self.path}: the file has no header. Its first row must name the columns."
            )
        delimiter, names = self._columns(header)
        column = names.index(self.field)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        line = 2
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                self._reject(
                    f"{self.path}, line {line}: not a row of a table ({error}). Close its quotes, "
                    "and double those inside of a quoted cell."
                )
                line = rows.line_num + 2
                continue
            began, line = line, rows.line_num + 2
            if not row:
                continue
            if len(row) != len(names):
                self._reject(
                    f"{self.path}, line {began}: {len(row)} cells under {len(names)} columns. "
                    "Quote cells that hold the delimiter or line breaks."
                )
                continue
            yield began, row[column]

    def _columns(self, header: str) -> tuple[str, list[str]]:
        choices: list[list[str]] = []
        for delimiter in _DELIMITERS:
            try:
                names = next(csv.reader([header], delimiter=delimiter, strict=True))
            except csv.Error as error:
                raise DataError(
                    f"{self.path}, line 1: not a header of a table ({error}). Mend its quotes."
                ) from error
            if self.field in names:
                return delimiter, names
            choices.append(names)
        most = max(choices, key=len)
        raise DataError(f"{self.path}: {absent(self.field, most, 'column')}")

    def _lines(self) -> Iterator[str]:
        """Lines as text; a byte that is not UTF-8 becomes a lone surrogate, which is refused."""
        with whole_gzip(self.path), open_binary(self.path) as file:
            first = True
            while line := file.readline(MAX_CELL):
                if len(line) == MAX_CELL and not line.endswith(b"\n"):
                    raise DataError(
                        f"{self.path}: a line is longer than {MAX_CELL >> 20} MiB. Is this a table?"
                    )
                if first and line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
                first = False
                yield line.decode("utf-8", "surrogateescape")


def _decoded(cell: str) -> str:
    """The cell, unless it holds bytes that are not UTF-8."""
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(cell[error.start]) & 0xFF
        raise DataError(
            f"byte {byte:#04x} at character {error.start + 1} of the cell is not UTF-8. Convert "
            "the file, for example with `iconv -f latin1 -t utf-8`."
        ) from error
    return cell


class ParquetSource(Source):
    """The cells of one column of a ``.parquet`` file, one document each; needs pyarrow."""

    def __init__(self, path: Path, field: str = "text", on_error: OnError = "raise") -> None:
        super().__init__(on_error)
        self.path = path
        self.field = field

    def identity(self) -> str:
        return f"parquet {self.on_error} {self.field}\n{self.path}"

    def files(self) -> list[Path]:
        return [self.path]

    def size(self) -> int | None:
        with self._open() as file:
            metadata = file.metadata
            names = metadata.schema.names
            if self.field not in names:
                return None
            column = names.index(self.field)
            groups = [metadata.row_group(each) for each in range(metadata.num_row_groups)]
            return sum(int(each.column(column).total_uncompressed_size) for each in groups)

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        number = 0
        with self._open() as file:
            import pyarrow

            if self.field not in file.schema_arrow.names:
                known = file.schema_arrow.names
                raise DataError(f"{self.path}: {absent(self.field, known, 'column')}")
            batches = file.iter_batches(batch_size=_ROWS, columns=[self.field])
            while True:
                try:
                    batch = next(batches, None)
                except (pyarrow.ArrowException, OSError) as error:
                    raise _damaged(self.path, error) from error
                if batch is None:
                    break
                for cell in batch.column(0):
                    number += 1
                    try:
                        text = check_text(_cell(cell), self.field, "column")
                    except DataError as error:
                        self._reject(f"{self.path}, row {number}: {error}")
                        continue
                    yield Piece(text)
        if not number:
            self._reject(f"{self.path}: the table has no rows. Take it off the list.")

    def _open(self) -> ParquetFile:
        try:
            import pyarrow
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise OmnimaError(
                f'Reading {self.path} needs pyarrow: pip install "omnima[data]" '
                "(or pip install pyarrow)."
            ) from error
        try:
            return ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error


def _cell(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"byte {byte:#04x} at position {error.start} is not UTF-8. Write the table anew."
        ) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a whole Parquet file ({error}). Fetch or write it again.")
