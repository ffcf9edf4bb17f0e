"""Places for what is written, checked before any work is done."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from omnima.errors import ConfigError


def new_directory(out: str | os.PathLike[str]) -> Path:
    """Return a directory that is absent or empty, and can be written.

    Raises
    ------
    ConfigError
        A file or files are there, or it cannot be made.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     new_directory(f"{empty}/new").name
    'new'
    """
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{out} is there already: give a new or an empty directory.")
    check_writable(path)
    return path


def new_file(out: str | os.PathLike[str]) -> Path:
    """Return a file that can be written; one that is there will be replaced.

    Raises
    ------
    ConfigError
        A directory is there, or it cannot be made.
    """
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"{out} is a directory: give the name of a file.")
    check_writable(path.parent)
    return path


def check_writable(directory: Path) -> None:
    """Refuse a directory in which nothing can be written, whether it is there or not.

    Raises
    ------
    ConfigError
        Names what is in the way.
    """
    whole = directory.absolute()
    place = next(each for each in (whole, *whole.parents) if os.path.lexists(each))
    if not place.is_dir():
        raise ConfigError(
            f"{directory} cannot be written to: {place} is a file; name another directory."
        )
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be written to: {place} says {error.strerror or error}; name "
            "another directory."
        ) from error
