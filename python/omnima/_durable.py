"""Small files and directories that survive a crash: written aside, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to the disk."""
    handle = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and overlay file systems have no directory flush.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file at once: readers see the old bytes or the new ones, never a part.

    Raises
    ------
    OSError
        When the disk is full or refuses; a file that was there before is unchanged.

    Examples
    --------
    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_durably(path, b"kept"); path.read_bytes()
    b'kept'
    """
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        raise
    sync_directory(path.parent)
