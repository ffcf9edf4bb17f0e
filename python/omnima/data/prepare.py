"""From a source and a tokenizer to token shards on disk: streamed, parallel, resumable, reused."""

from __future__ import annotations

import fcntl
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from omnima.data.base import FileState, Source, hash_file
from omnima.data.shards import (
    FORMAT,
    ShardWriter,
    find_damage,
    read_json,
    record_name,
    write_json,
)  # fmt: skip
from omnima.data.split import SPLITS, Part, Splitter, choose_split, position_of_cut
from omnima.data.tokens import MANIFEST, TokenData
from omnima.data.version import version_of
from omnima.errors import ConfigError, DataError

CHUNK_BYTES = 8 << 20  # text that is tokenized in one call
SHARD_BYTES = 128 << 20  # text of one shard
_HEADER = "building.json"


class AnyTokenizer(Protocol):
    """What `prepare` needs of a tokenizer; omnima.Tokenizer has it."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def special_tokens(self) -> dict[str, int]: ...
    @property
    def fingerprint(self) -> str: ...
    def encode_batch(self, texts: list[str], threads: int = 0) -> list[npt.NDArray[Any]]: ...


@dataclass(frozen=True)
class PrepareProgress:
    """How far tokenization has come; `total_bytes` is None where it cannot be known."""

    documents: int
    bytes: int
    tokens: int
    total_bytes: int | None


Progress = Callable[[PrepareProgress], object]


def prepare(
    source: Source,
    tokenizer: AnyTokenizer,
    cache_dir: str | Path,
    val_fraction: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    split: Literal["auto", "hash", "position"] = "auto",
    shard_bytes: int = SHARD_BYTES,
) -> TokenData:
    """Tokenize a source into memory-mapped shards, or reuse those that are already there.

    Parameters
    ----------
    source : Source
        As `open_source` gives it; read as a stream, never held.
    tokenizer : Tokenizer
        Its ``encode_batch`` runs in parallel outside the interpreter lock.
    cache_dir : str or Path
        Shards go to a sub-directory named by source, tokenizer and split.
    val_fraction : float
        Share of the documents (of the characters, when split by position) kept for validation.
    seed : int
        Key of the split by hash.
    progress : callable, optional
        Called with a `PrepareProgress` after every chunk.
    split : {"auto", "hash", "position"}
        ``"auto"``: by hash of each document, or by position if there are fewer than 20 documents
        or one side would be empty.

    Raises
    ------
    DataError
        If the source holds bad records or no document, or changes while it is read.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; expected 0 <= val_fraction < 1")
    if split not in ("auto", "hash", "position"):
        raise ConfigError(f'split is {split!r}; expected "auto", "hash" or "position"')
    end_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
    if end_id is None:
        raise ConfigError(
            "the tokenizer has neither an end nor a begin token, so documents cannot be told "
            "apart; train it with special tokens."
        )
    token_ids = _special_ids(source, tokenizer)
    asked = {
        "format": FORMAT,
        "source": source.identity(),
        "tokenizer": tokenizer.fingerprint,
        "val_fraction": val_fraction,
        "seed": seed,
        "split_asked": split,
        "width": 2 if tokenizer.vocab_size <= 65535 else 4,
        "end_id": end_id,
        "start_id": tokenizer.bos_id if tokenizer.bos_id is not None else end_id,
        "vocab_size": tokenizer.vocab_size,
    }
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]
    directory = Path(cache_dir) / key
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / "lock"):
        builder = _Builder(source, tokenizer, directory, asked, progress, shard_bytes)
        builder.token_ids = token_ids
        return builder.run()


def _special_ids(source: Source, tokenizer: AnyTokenizer) -> dict[str, int]:
    """The id of each special token that the source puts before text."""
    ids = {}
    for token in source.special_tokens():
        if token not in tokenizer.special_tokens:
            raise ConfigError(
                f"the data puts {token} before text, but the tokenizer has no such token; train it "
                f'with special_tokens=["{token}", …] (omnima tokenizer train does), or take what '
                "asks for it (language, fill_in_middle) out of the data."
            )
        ids[token] = tokenizer.special_tokens[token]
    return ids


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time works in a directory; the lock ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Builder:
    """Brings one cache directory up to date."""

    def __init__(
        self,
        source: Source,
        tokenizer: AnyTokenizer,
        directory: Path,
        asked: dict[str, Any],
        progress: Progress | None,
        shard_bytes: int,
    ) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.directory = directory
        self.asked = asked
        self.progress = progress
        self.shard_bytes = shard_bytes
        self.token_ids: dict[str, int] = {}  # of the special tokens that go before text

    def run(self) -> TokenData:
        manifest = read_json(self.directory / MANIFEST)
        if manifest is not None:
            files = self._same_files(manifest["files"])
            if files is None:
                self._clear()
            else:
                if files != manifest["files"]:  # touched, but the contents are the same
                    manifest["files"] = files
                    write_json(self.directory / MANIFEST, manifest)
                if self._undamaged(manifest["shards"]):
                    self.source.skipped = manifest["skipped"]
                    return TokenData(self.directory, manifest, self.source)
                (self.directory / MANIFEST).unlink()
        header = read_json(self.directory / _HEADER)
        files = self._same_files(header["files"]) if header is not None else None
        if header is None or files is None:
            self._clear()
            header = self._begin()
            write_json(self.directory / _HEADER, header)
        else:
            header["files"] = files
        return self._build(header)

    def _same_files(self, known: list[Any]) -> list[Any] | None:
        """The files' states with their hashes if contents are those known, else None."""
        states = self.source.file_states()
        if [entry[0] for entry in known] != [state.path for state in states]:
            return None
        result = []
        for entry, state in zip(known, states, strict=True):
            if FileState(*entry[:3]) != state:
                if entry[1] != state.size or hash_file(Path(state.path)) != entry[3]:
                    return None
            result.append([*state, entry[3]])
        return result

    def _undamaged(self, shards: list[dict[str, Any]]) -> bool:
        """True if all is well; else say so and drop the first bad shard and those after it."""
        for record in shards:
            if damage := find_damage(self.directory, record, thorough=False):
                warnings.warn(f"{damage}; it is made again from the source.", stacklevel=5)
                for later in range(record["index"], len(shards)):
                    (self.directory / record_name(later)).unlink(missing_ok=True)
                return False
        return True

    def _clear(self) -> None:
        for path in self.directory.iterdir():
            if path.name != "lock":
                path.unlink()

    def _begin(self) -> dict[str, Any]:
        """Decide what must not change until the last shard is written."""
        states = self.source.file_states()
        files = [[*state, hash_file(Path(state.path))] for state in states]
        split, fraction = self.asked["split_asked"], self.asked["val_fraction"]
        if split == "auto":
            split = choose_split(self.source, fraction, self.asked["seed"])
        if split == "position" and self.source.repeats:
            raise ConfigError(
                "the mixture reads documents more than once, and it would be split by position, so "
                "that training and validation would share them; give at least 20 documents, or "
                "stopping_strategy: first_exhausted."
            )
        cut = position_of_cut(self.source, fraction) if split == "position" else None
        version = {**version_of(self.source, files), "tokenizer": self.asked["tokenizer"]}
        return {**self.asked, "split": split, "cut": cut, "files": files, "version": version}

    def _finished(self) -> list[dict[str, Any]]:
        """Records of the shards that an earlier, interrupted run completed."""
        records: list[dict[str, Any]] = []
        while record := read_json(self.directory / record_name(len(records))):
            if damage := find_damage(self.directory, record, thorough=False):
                warnings.warn(f"{damage}; it is made again from the source.", stacklevel=6)
                break
            records.append(record)
        return records

    def _build(self, header: dict[str, Any]) -> TokenData:
        shards = self._finished()
        splitter = Splitter(header["val_fraction"], header["seed"], header["cut"])
        done: dict[str, Any] = {"pieces": 0, "characters": 0, "side": None, "complete": False}
        if shards:
            done = shards[-1]["progress"]
            splitter.characters, splitter.side = done["characters"], done["side"]
        if not done["complete"]:
            self._write_shards(header, splitter, done["pieces"], shards)
        if self._same_files(header["files"]) is None:
            self._clear()
            raise DataError(
                "the data changed while it was being tokenized; run again when it stays as it is."
            )
        totals = _add_up(shards)
        if not sum(side["documents"] + side["tokens"] for side in totals.values()):
            raise DataError("there is no document in the data; give at least one with some text.")
        manifest = {
            **header,
            "totals": totals,
            "skipped": self.source.skipped,
            "shards": shards,
        }
        write_json(self.directory / MANIFEST, manifest)
        return TokenData(self.directory, manifest, self.source)

    def _write_shards(
        self, header: dict[str, Any], splitter: Splitter, first: int, shards: list[dict[str, Any]]
    ) -> None:
        totals = _add_up(shards)
        documents = sum(side["documents"] for side in totals.values())
        size = sum(side["bytes"] for side in totals.values())
        tokens = sum(side["tokens"] for side in totals.values())
        writer = ShardWriter(self.directory, len(shards), header["width"])
        state: dict[str, Any] = {}
        try:
            for parts, arrays, state in self._encoded(splitter, first):
                added = _write(writer, parts, arrays, header["end_id"], self.token_ids)
                documents += sum(part.last for part in parts)
                size += sum(part.size for part in parts)
                tokens += added
                if self.progress is not None:
                    total = self.source.size()
                    self.progress(PrepareProgress(documents, size, tokens, total))
                if writer.bytes >= self.shard_bytes and not state["complete"]:
                    shards.append(writer.finish(state))
                    writer = ShardWriter(self.directory, len(shards), header["width"])
            shards.append(writer.finish({**state, "complete": True}))
        except BaseException:
            writer.abandon()
            raise

    def _encoded(
        self, splitter: Splitter, first: int
    ) -> Iterator[tuple[list[Part], list[npt.NDArray[Any]], dict[str, Any]]]:
        """Yield chunks with their ids; the next chunk is read while one is tokenized."""
        waiting: tuple[list[Part], Future[list[npt.NDArray[Any]]], dict[str, Any]] | None = None
        with ThreadPoolExecutor(1, "omnima-tokenize") as pool:
            for parts, state in self._chunks(splitter, first):
                future = pool.submit(self.tokenizer.encode_batch, [part.text for part in parts])
                if waiting is not None:
                    yield waiting[0], waiting[1].result(), waiting[2]
                waiting = (parts, future, state)
            if waiting is not None:
                yield waiting[0], waiting[1].result(), waiting[2]

    def _chunks(
        self, splitter: Splitter, first: int
    ) -> Iterator[tuple[list[Part], dict[str, Any]]]:
        parts: list[Part] = []
        held = 0
        pieces = first

        def state() -> dict[str, Any]:
            return {
                "pieces": pieces,
                "characters": splitter.characters,
                "side": splitter.side,
                "complete": False,
            }

        chunk = min(CHUNK_BYTES, self.shard_bytes)
        for piece in islice(self.source.pieces(), first, None):
            pieces += 1
            for part in splitter.parts(piece):
                parts.append(part)
                held += part.size
            if held >= chunk:
                yield parts, state()
                parts, held = [], 0
        if parts:
            yield parts, state()


def _write(
    writer: ShardWriter,
    parts: list[Part],
    ids: list[npt.NDArray[Any]],
    end_id: int,
    token_ids: dict[str, int],
) -> int:
    """Append a chunk, an end token after each document; return the number of tokens."""
    end = np.array([end_id], dtype=np.int64)
    total = 0
    for side in range(len(SPLITS)):
        arrays: list[npt.NDArray[Any]] = []
        ends: list[int] = []
        log_probabilities: list[float | None] = []
        length = size = 0
        for part, array in zip(parts, ids, strict=True):
            if part.side != side:
                continue
            if part.tokens:
                arrays.append(np.array([token_ids[each] for each in part.tokens], dtype=np.int64))
                length += len(part.tokens)
            arrays.append(array)
            length += len(array)
            size += part.size
            if part.last:
                arrays.append(end)
                length += 1
                ends.append(length)
            log_probabilities.append(part.log_probability)
        writer.add(side, arrays, ends, size, log_probabilities)
        total += length
    return total


def _add_up(shards: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        sides = [record["splits"][split] for record in shards]
        known = [side["log_probability"] for side in sides]
        totals[split] = {
            name: sum(side[name] for side in sides)
            for name in ("tokens", "documents", "bytes", "mass")
        }
        totals[split]["log_probability"] = None if None in known else sum(known)
    return totals
