"""Files written durably: the new bytes or the old ones, also when the disk refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from omnima import _durable as durable


def test_a_full_disk_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "näme.json"
    durable.write_durably(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_durably(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_flush_directories_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> None:
        def fsync(handle: int) -> None:
            raise OSError(number, "refused")

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(errno.EINVAL)
    durable.sync_directory(tmp_path)
    refuse(errno.EIO)
    with pytest.raises(OSError, match="refused"):
        durable.sync_directory(tmp_path)
    monkeypatch.undo()
    (tmp_path / "a").write_bytes(b"x")
    durable.sync_file(tmp_path / "a")
