"""Token shards on disk: their files, how they are written, and how damage is found.

A shard is a part of the corpus in source order. For each side of the split it has ``.tokens``
(little-endian uint16 or uint32) and ``.docs`` (uint64: where each document ends, counted from the
shard's first token), and a ``.json`` record that is written last, so a shard is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from omnima._durable import write_durably
from omnima.data.split import SPLITS
from omnima.errors import DataError

FORMAT = 2
_SAMPLES, _SAMPLE_BYTES = 16, 4096


def tokens_name(index: int, split: str) -> str:
    """Return the name of the file with a shard's ids."""
    return f"{split}-{index:05d}.tokens"


def docs_name(index: int, split: str) -> str:
    """Return the name of the file that says where a shard's documents end."""
    return f"{split}-{index:05d}.docs"


def record_name(index: int) -> str:
    """Return the name of the file with a shard's sizes and hashes."""
    return f"shard-{index:05d}.json"


def write_json(path: Path, content: Any) -> None:
    """Write at once: the file is whole or as it was."""
    write_durably(path, json.dumps(content, indent=1).encode("utf-8"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The content, or None when there is no such file or it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def quick_hash(path: Path) -> str:
    """A sha256 of the size and of evenly spread samples: cheap, finds most damage."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        step = max(_SAMPLE_BYTES, (size - _SAMPLE_BYTES) // (_SAMPLES - 1) or 1)
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def find_damage(directory: Path, record: dict[str, Any], thorough: bool) -> str | None:
    """What is wrong with a shard's files, in words, or None."""
    for name, expected in record["files"].items():
        path = directory / name
        if not path.is_file():
            return f"{path} is gone"
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{path} holds {size} bytes instead of {expected['size']}"
        if quick_hash(path) != expected["quick"]:
            return f"{path} was changed since it was written (sampled checksum)"
        if thorough:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            if digest.hexdigest() != expected["sha256"]:
                return f"{path} was changed since it was written (sha256)"
    return None


class _File:
    """A file that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)  # another process may have the old file mapped
        self.file: BinaryIO = path.open("wb")
        self.digest = hashlib.sha256()

    def write(self, array: npt.NDArray[Any]) -> None:
        content = array.tobytes()
        self.file.write(content)
        self.digest.update(content)

    def close(self) -> dict[str, Any]:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        size = self.path.stat().st_size
        return {"size": size, "sha256": self.digest.hexdigest(), "quick": quick_hash(self.path)}


class _Side:
    """One side of the split in the shard being written."""

    def __init__(self, directory: Path, index: int, split: str) -> None:
        self.tokens_file = _File(directory / tokens_name(index, split))
        self.docs_file = _File(directory / docs_name(index, split))
        self.tokens = 0
        self.documents = 0
        self.bytes = 0
        self.log_probability: float | None = 0.0
        self.mass = 0.0  # sum of the documents' probabilities

    def totals(self) -> dict[str, Any]:
        names = ("tokens", "documents", "bytes", "log_probability", "mass")
        return {name: getattr(self, name) for name in names}


class ShardWriter:
    """Writes one shard: token arrays go to their sides, ``finish`` seals it."""

    def __init__(self, directory: Path, index: int, width: int) -> None:
        self.directory = directory
        self.index = index
        self.dtype = np.dtype(f"<u{width}")
        self.sides = [_Side(directory, index, split) for split in SPLITS]
        self.bytes = 0

    def add(
        self,
        side: int,
        arrays: list[npt.NDArray[Any]],
        ends: list[int],
        size: int,
        log_probabilities: list[float | None],
    ) -> None:
        """Append tokens; `ends` are the document ends among them, counted from the first."""
        if not arrays:
            return
        to = self.sides[side]
        tokens = np.concatenate(arrays)
        if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) > np.iinfo(self.dtype).max):
            raise DataError(
                f"the tokenizer gave the id {int(tokens.max())}, which is beyond its vocab_size; "
                "its files do not fit together, load or train it again."
            )
        to.tokens_file.write(tokens.astype(self.dtype, copy=False))
        to.docs_file.write(np.asarray(ends, dtype="<u8") + np.uint64(to.tokens))
        to.tokens += tokens.size
        to.documents += len(ends)
        to.bytes += size
        self.bytes += size
        for value in log_probabilities:
            if value is None:
                to.log_probability = None
            elif to.log_probability is not None:
                to.log_probability += value
                to.mass += float(np.exp(value))

    def finish(self, progress: dict[str, Any]) -> dict[str, Any]:
        """Flush all files, then write the record; `progress` is where the next shard goes on."""
        files: dict[str, Any] = {}
        for split, side in zip(SPLITS, self.sides, strict=True):
            files[tokens_name(self.index, split)] = side.tokens_file.close()
            files[docs_name(self.index, split)] = side.docs_file.close()
        record = {
            "index": self.index,
            "files": files,
            "splits": {
                split: side.totals() for split, side in zip(SPLITS, self.sides, strict=True)
            },
            "progress": progress,
        }
        write_json(self.directory / record_name(self.index), record)
        return record

    def abandon(self) -> None:
        """Close the files of a shard that will not be finished."""
        for side in self.sides:
            side.tokens_file.file.close()
            side.docs_file.file.close()
