"""What a source of documents is: a stream of text, what it depends on, and what it skipped."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from omnima.errors import DataError

OnError = Literal["raise", "skip"]

#: Ends the message of a bad record.
SKIP_ADVICE = ' Or pass on_error="skip" to leave such records out.'
PIECE_BYTES = 4 << 20  # no more of one document than this is held at a time


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    last: bool = True  # the document ends here
    log_probability: float | None = None  # of the whole document in nats, where it is known
    tokens: tuple[str, ...] = ()  # special tokens that go before the text


class FileState(NamedTuple):
    """What tells at a glance whether a file was changed."""

    path: str
    size: int
    mtime_ns: int


class Source(ABC):
    """A stream of documents that can be read again from the start at any time.

    Attributes
    ----------
    skipped : int
        Bad records of the latest reading that were left out (``on_error="skip"``).
    """

    repeats = False  # the same document may come twice, because it was asked for

    def __init__(self, on_error: OnError = "raise") -> None:
        self.on_error = on_error
        self.skipped = 0
        self._fingerprint: tuple[list[FileState], str] | None = None

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """Yield the documents in order, long ones in several pieces."""

    @abstractmethod
    def identity(self) -> str:
        """Everything but file contents that the documents depend on."""

    def files(self) -> list[Path]:
        """The files that are read, in order; none for a source that is made up."""
        return []

    def size(self) -> int | None:
        """About how many bytes of text there are, or None when nobody knows before reading."""
        files = self.files()
        if not files or any(path.suffix == ".gz" for path in files):
            return None
        return sum(path.stat().st_size for path in files)

    def documents(self) -> Iterator[str]:
        """Yield every document whole."""
        parts: list[str] = []
        for piece in self.pieces():
            parts.append(piece.text)
            if piece.last:
                yield parts[0] if len(parts) == 1 else "".join(parts)
                parts.clear()

    def __iter__(self) -> Iterator[str]:
        return self.documents()

    def special_tokens(self) -> tuple[str, ...]:
        """The special tokens that pieces begin with; none for most sources."""
        return ()

    def file_states(self) -> list[FileState]:
        """Size and time of change of every file."""
        states = []
        for path in self.files():
            status = path.stat()
            states.append(FileState(str(path), status.st_size, status.st_mtime_ns))
        return states

    def fingerprint(self) -> str:
        """A sha256 of the identity and of the contents of all files (read again if changed)."""
        states = self.file_states()
        if self._fingerprint is None or self._fingerprint[0] != states:
            digest = hashlib.sha256(self.identity().encode())
            for path in self.files():
                digest.update(hash_file(path).encode())
            self._fingerprint = (states, digest.hexdigest())
        return self._fingerprint[1]

    def _reject(self, message: str) -> None:
        """Raise for a bad record, or count it when bad ones are to be skipped."""
        if self.on_error == "raise":
            raise DataError(message + SKIP_ADVICE)
        self.skipped += 1


def hash_file(path: Path) -> str:
    """The sha256 of a file's contents."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class ChainSource(Source):
    """Several sources, one after the other."""

    def __init__(self, parts: list[Source]) -> None:
        super().__init__()
        self.parts = parts
        self.repeats = any(part.repeats for part in parts)

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        before = 0
        for part in self.parts:
            for piece in part.pieces():
                self.skipped = before + part.skipped
                yield piece
            before += part.skipped
            self.skipped = before

    def identity(self) -> str:
        return "chain\n" + "\n".join(part.identity() for part in self.parts)

    def files(self) -> list[Path]:
        return [path for part in self.parts for path in part.files()]

    def size(self) -> int | None:
        sizes = [part.size() for part in self.parts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def special_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for part in self.parts for each in part.special_tokens()))
