"""From what a user types (a path, a glob, a name, a list of these) to a source of documents."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from omnima._sizes import read_size
from omnima.data.base import ChainSource, OnError, Source
from omnima.data.described import read_description
from omnima.data.huggingface import PREFIX, HuggingFaceSource
from omnima.data.jsonl import JsonlSource
from omnima.data.mixture import read_mixture
from omnima.data.pystdlib import PystdlibSource
from omnima.data.squad import SquadSource
from omnima.data.tables import CsvSource, ParquetSource
from omnima.data.text import TextSource
from omnima.data.tinyworld_source import DEFAULT_SIZE, TinyWorldSource
from omnima.errors import ConfigError, DataError

Spec = str | Path | Source | Sequence[str | Path | Source]

NAMES = ("pystdlib", "tinyworld")
# What a directory is searched for; a file named by itself may end in anything.
SUFFIXES = tuple(
    ".txt .txt.gz .md .rst .tex .org .jsonl .jsonl.gz .csv .csv.gz .tsv .tsv.gz .parquet .py .pyi "
    ".c .h .cc .cpp .hpp .cu .rs .go .java .js .ts .jsx .tsx .rb .php .cs .swift .kt .scala .lua "
    ".r .jl .sh .sql .html .css".split()
)


def open_source(
    spec: Spec,
    field: str | None = None,
    on_error: OnError = "raise",
    document_break: str | None = None,
) -> Source:
    """Open a source of documents.

    Parameters
    ----------
    spec : str, Path, Source or a list of these
        A text file, a glob, a directory (searched for text, code, JSON lines and tables), a
        ``.jsonl``, ``.csv`` or ``.tsv`` file, SQuAD's ``.json`` (each also with ``.gz``), a
        ``.parquet`` file, a dataset of the Hugging Face hub (``"hf:OWNER/NAME?split=train"``), a
        mixture (``.yaml``, see `open_mixture`), ``"pystdlib"``, ``"tinyworld"`` or
        ``"tinyworld:4MB"``. A list is read one after the other.
    field : str, optional
        The field of JSON lines, or the column of a table, that holds the text (a list of texts
        is read as its lines); ``"text"`` when not given.
    on_error : {"raise", "skip"}
        Raise for a bad record, naming file and line, or leave it out and count it in ``.skipped``.
    document_break : str, optional
        A regular expression: in text files, a line that matches it (``"^CHAPTER "``) begins a new
        document.

    Raises
    ------
    DataError
        If there is no such file, or nothing to read in it.

    Examples
    --------
    >>> source = open_source("tinyworld:10KB")
    >>> sum(len(text) for text in source.documents()) >= 10_000
    True
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f'on_error is {on_error!r}; expected "raise" or "skip"')
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, (str, Path)):
        return _open_one(str(spec), field or "text", on_error, document_break)
    parts = [open_source(part, field, on_error, document_break) for part in spec]
    if not parts:
        raise DataError("the list of sources is empty; name a file, a directory or 'tinyworld'.")
    return parts[0] if len(parts) == 1 else ChainSource(parts)


def is_built_in(spec: str) -> bool:
    """Whether a source is a name, and no path."""
    return spec in NAMES or spec.startswith(("tinyworld:", PREFIX))


def _open_one(spec: str, field: str, on_error: OnError, document_break: str | None) -> Source:
    if spec == "pystdlib":
        return PystdlibSource(on_error)
    if spec == "tinyworld":
        return TinyWorldSource(DEFAULT_SIZE)
    if spec.startswith("tinyworld:"):
        return TinyWorldSource(parse_size(spec.removeprefix("tinyworld:")))
    if spec.startswith(PREFIX):
        return HuggingFaceSource.parse(spec, field, on_error)
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return open_mixture(path)
    if path.is_dir():
        return _open_directory(path, field, on_error, document_break)
    if path.is_file():
        return _open_files([path.resolve()], field, on_error, document_break)
    matches = sorted(Path(match).resolve() for match in glob.glob(str(path), recursive=True))
    files = [match for match in matches if match.is_file()]
    if files:
        return _open_files(files, field, on_error, document_break)
    raise DataError(_nothing_there(spec, path))


def open_mixture(path: str | Path) -> Source:
    """Open the mixture that a YAML file describes.

    Under ``sources`` stand mappings with ``data`` (what `open_source` takes, or a list; paths are
    read from the file's folder) and, where wanted, ``weight`` (a share of the bytes), ``language``
    (its token goes before each document), ``field``, ``on_error``, ``document_break``, and the
    shares of documents that ``fill_in_middle`` and ``shuffle_sentences`` change.
    ``stopping_strategy`` is
    ``first_exhausted`` (nothing is read twice) or ``all_exhausted``.

    Raises
    ------
    ConfigError
        If the description is not as above; the message names the entry.
    """
    path = Path(path).expanduser().resolve()
    return read_mixture(
        read_description(path, "mixture"),
        path.parent,
        f"the mixture {path}",
        open_source,
        lambda parts: parts[0] if len(parts) == 1 else ChainSource(parts),
    )


def _nothing_there(spec: str, path: Path) -> str:
    if glob.has_magic(spec):
        return f"no file matches {spec!r}; check the pattern (** goes through sub-directories)."
    around = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, around, n=1) or get_close_matches(spec, NAMES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    missing = "" if path.parent.is_dir() else f" (there is no directory {str(path.parent)!r})"
    return (
        f"there is no file or directory {spec!r}{missing}. {hint}"
        f"Give a path, a glob or one of: {', '.join(NAMES)}, tinyworld:SIZE, hf:OWNER/NAME."
    )


def _open_directory(
    path: Path, field: str, on_error: OnError, document_break: str | None
) -> Source:
    root = path.resolve()
    files = [
        file
        for file in sorted(root.rglob("*"))
        if file.name.lower().endswith(SUFFIXES)
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    ]
    if not files:
        raise DataError(
            f"the directory {str(path)!r} holds no text. Searched (also below it) for files "
            f"ending in {' '.join(SUFFIXES)}; name other files with a glob, such as '{path}/*.log'."
        )
    return _open_files(files, field, on_error, document_break)


def _open_files(
    files: list[Path], field: str, on_error: OnError, document_break: str | None
) -> Source:
    """One source for each run of files of a kind."""
    parts: list[Source] = []
    for file in files:
        name = file.name.lower().removesuffix(".gz")
        if name.endswith(".jsonl"):
            parts.append(JsonlSource(file, field, on_error))
        elif name.endswith((".csv", ".tsv")):
            parts.append(CsvSource(file, field, on_error))
        elif name.endswith(".parquet"):
            parts.append(ParquetSource(file, field, on_error))
        elif name.endswith(".json"):
            parts.append(SquadSource(file, on_error))
        elif parts and isinstance(parts[-1], TextSource):
            parts[-1].paths.append(file)
        else:
            parts.append(TextSource([file], on_error, document_break))
    return parts[0] if len(parts) == 1 else ChainSource(parts)


def parse_size(text: str) -> int:
    """Bytes of a size such as ``4MB`` or ``500KB``.

    >>> parse_size("4MB")
    4000000
    """
    size = read_size(text)
    if size is None:
        raise ConfigError(
            f"tinyworld's size is {text!r}; write it as in tinyworld:4MB or tinyworld:500KB"
        )
    return size
