"""Datasets of the Hugging Face hub, or a directory in its layout, through the library `datasets`.

``hf:OWNER/NAME?name=CONFIG&split=train`` takes the arguments of ``datasets.load_dataset``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from omnima.data.base import OnError, Piece, Source
from omnima.data.fields import absent, check_text
from omnima.errors import ConfigError, DataError, OmnimaError

PREFIX = "hf:"
_OPTIONS = ("name", "split", "revision", "data_dir", "data_files", "streaming")
_SAVED = ("dataset_info.json", "dataset_dict.json")  # what Dataset.save_to_disk leaves


class HuggingFaceSource(Source):
    """The texts of one column of a dataset's split.

    Parameters
    ----------
    dataset : str
        Its name on the hub, or a directory (tables as the hub lays them out, or what
        ``save_to_disk`` wrote).
    field : str
        The column of texts.
    on_error : {"raise", "skip"}
        What a bad row does.
    streaming : bool, optional
        Read without a copy on the disk. By default a directory is streamed, while a dataset of the
        hub is fetched once, because it is read more than once.
    **options
        ``split`` (``"train"`` when not given; slices such as ``train[:10%]`` work without
        streaming), ``name``, ``revision``, ``data_dir`` and ``data_files`` of ``load_dataset``.
    """

    def __init__(
        self,
        dataset: str,
        field: str = "text",
        on_error: OnError = "raise",
        *,
        streaming: bool | None = None,
        split: str = "train",
        **options: str,
    ) -> None:
        super().__init__(on_error)
        self.dataset, self.field, self.split, self.options = dataset, field, split, options
        self.directory = Path(dataset).expanduser().resolve() if Path(dataset).is_dir() else None
        self.streaming = self.directory is not None if streaming is None else streaming
        self._hash: str | None = None

    @classmethod
    def parse(cls, spec: str, field: str = "text", on_error: OnError = "raise") -> Source:
        """Read ``hf:NAME?option=value&…``."""
        name, _, query = spec.removeprefix(PREFIX).partition("?")
        options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        unknown = [key for key in options if key not in _OPTIONS]
        if not name or unknown or (query and not options):
            wrong = f"unknown option {unknown[0]!r}" if unknown else "no name or option"
            raise ConfigError(
                f"{spec!r}: {wrong}; write hf:OWNER/NAME?split=train, with the options "
                f"{', '.join(_OPTIONS)}."
            )
        if "streaming" in options:
            if options["streaming"] not in ("true", "false"):
                raise ConfigError(f"{spec!r}: streaming is true or false.")
            options["streaming"] = options["streaming"] == "true"
        return cls(name, field, on_error, **options)

    def identity(self) -> str:
        options = sorted(self.options.items())
        return (
            f"hf {self.on_error} {self.field} {self.split} {options}\n"
            f"{self.directory or self.dataset} {self._version()}"
        )

    def files(self) -> list[Path]:
        if self.directory is None:
            return []
        return sorted(
            path
            for path in self.directory.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self.directory).parts)
        )

    def size(self) -> int | None:
        return None

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        number = 0
        rows = iter(self._open())
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # the library passes on whatever its readers raise
                raise self._failed(f"after row {number}", error) from error
            if row is None:
                break
            number += 1
            if self.field not in row:
                raise DataError(f"{self._where()}: {absent(self.field, row, 'column')}")
            try:
                text = check_text(row[self.field], self.field, "column")
            except DataError as error:
                self._reject(f"{self._where()}, row {number}: {error}")
                continue
            yield Piece(text)
        if not number:
            self._reject(f"{self._where()}: the split has no rows. Take it off the list.")

    def _where(self) -> str:
        return f"{PREFIX}{self.dataset} ({self.split})"

    def _failed(self, what: str, error: Exception) -> DataError:
        words = " ".join(str(error).split())[:300] or type(error).__name__
        return DataError(
            f"{self._where()}: the library `datasets` failed {what}: {words}. Check the name, its "
            "options and the connection."
        )

    def _library(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise OmnimaError(
                f'Reading {PREFIX}{self.dataset} needs datasets: pip install "omnima[data]" '
                "(or pip install datasets)."
            ) from error
        return datasets

    def _builder(self) -> Any:
        path = str(self.directory or self.dataset)
        try:
            return self._library().load_dataset_builder(path, **self.options)
        except OmnimaError:
            raise
        except Exception as error:  # no such dataset, no connection, a bad option, …
            raise self._failed("to find it", error) from error

    def _version(self) -> str:
        """The commit of a dataset of the hub; a directory's files are hashed instead."""
        if self.directory is not None:
            return ""
        if self._hash is None:
            self._hash = str(self._builder().hash)
        return self._hash

    def _open(self) -> Any:
        directory = self.directory
        if directory is not None and any((directory / name).exists() for name in _SAVED):
            return self._saved(directory)
        builder = self._builder()
        try:
            if self.streaming:
                return builder.as_streaming_dataset(split=self.split)
            builder.download_and_prepare()
            return builder.as_dataset(split=self.split)
        except Exception as error:  # an unknown split, a full disk, a damaged table, …
            raise self._failed("to open it", error) from error

    def _saved(self, directory: Path) -> Any:
        try:
            saved = self._library().load_from_disk(str(directory))
        except (OSError, ValueError, KeyError) as error:
            raise self._failed("to open it", error) from error
        if not isinstance(saved, dict):
            return saved
        if self.split not in saved:
            raise DataError(
                f"{self._where()}: no such split; there are {', '.join(map(repr, saved))}. Name "
                f"one with {PREFIX}{self.dataset}?split=…."
            )
        return saved[self.split]
