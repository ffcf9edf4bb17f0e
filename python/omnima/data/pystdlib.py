"""The running Python's own library as a corpus of code: real, large and already on the machine."""

from __future__ import annotations

import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from omnima.data.base import OnError, Piece, Source

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


class PystdlibSource(Source):
    """Every ``.py`` file of the standard library, without its tests and empty files."""

    def __init__(self, on_error: OnError = "raise", root: Path | None = None) -> None:
        super().__init__(on_error)
        self.root = root or Path(sysconfig.get_paths()["stdlib"])

    def identity(self) -> str:
        return f"pystdlib {platform.python_version()} {self.on_error}\n{self.root}"

    def files(self) -> list[Path]:
        found: list[Path] = []
        for directory, below, names in os.walk(self.root):
            below[:] = [name for name in below if name not in _LEFT_OUT]
            found += (Path(directory, name) for name in names if name.endswith(".py"))
        return sorted(found)

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        for path in self.files():
            try:
                with tokenize.open(path) as file:  # knows a file's own coding line
                    text = file.read()
            except (SyntaxError, UnicodeDecodeError) as error:
                self._reject(f"{path}: cannot be decoded ({error}). Reinstall this Python.")
                continue
            if text:
                yield Piece(text)
