"""Checkpoints that survive a kill, a full disk and a flipped bit.

A checkpoint is the directory `<run>/checkpoints/step-00000100`, written aside, flushed and renamed.
Its `manifest.json` comes last and holds the size and SHA-256 of every file, and its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnima._durable import sync_directory, sync_file, write_durably
from omnima.errors import CheckpointError, ConfigError, DataError, OmnimaError
from omnima.hub.strict_json import read_json_object

_MANIFEST = "manifest.json"
_FORMAT = 1
_STEP = re.compile(r"step-(\d{8,})")
_PIECE = 1 << 20

Warn = Callable[[str], None]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk.

    Attributes
    ----------
    path
        Its directory.
    step
        The training step after which it was saved.
    meta
        What the caller gave `CheckpointStore.save`.
    metric
        The figure by which the best is chosen (lower is better), or None.
    files
        Size and SHA-256 by relative path.
    """

    path: Path
    step: int
    meta: dict[str, Any]
    metric: float | None
    files: dict[str, tuple[int, str]]

    def part(self, name: str) -> Path:
        """The path of one of its files or directories; CheckpointError names a missing one."""
        if not any(file == name or file.startswith(f"{name}/") for file in self.files):
            raise CheckpointError(
                f'{self.path} has no "{name}"; it holds {", ".join(sorted(self.files))}. It cannot '
                "be resumed from without it: take another checkpoint."
            )
        return self.path / name

    def verify(self) -> None:
        """Raise CheckpointError, naming the file, unless every file has its size and hash."""
        for name, (size, digest) in sorted(self.files.items()):
            file = self.path / name
            try:
                if not file.is_file():
                    raise CheckpointError(f'{self.path}: the file "{name}" is missing.')
                if (found := file.stat().st_size) != size:
                    raise CheckpointError(
                        f'{self.path}: the file "{name}" has {found} bytes, but was saved '
                        f"with {size}."
                    )
                if _digest(file) != digest:
                    raise CheckpointError(
                        f'{self.path}: the bytes of "{name}" have changed since it was saved '
                        "(SHA-256 differs)."
                    )
            except OSError as error:
                raise CheckpointError(
                    f'{self.path}: the file "{name}" cannot be read: {error.strerror}.'
                ) from error


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint's manifest; its files are checked by `Checkpoint.verify`.

    Raises
    ------
    CheckpointError
        When the manifest is missing, damaged or of a later format.
    """
    folder = Path(path)
    if not (folder / _MANIFEST).is_file():
        raise CheckpointError(f"{folder} has no {_MANIFEST}: it is not a complete checkpoint.")
    try:
        manifest = read_json_object(folder / _MANIFEST)
    except DataError as error:
        raise CheckpointError(f"{folder}: the manifest is damaged. {error}") from error
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{folder}: the manifest has format {manifest.get('format')!r}, this Omnima "
            f"reads {_FORMAT}."
        )
    if manifest.get("sha256") != _manifest_digest(manifest):
        raise CheckpointError(f"{folder}: the manifest has changed since it was saved.")
    files = {
        str(name): (int(entry["size"]), str(entry["sha256"]))
        for name, entry in manifest["files"].items()
    }
    return Checkpoint(folder, manifest["step"], manifest["meta"], manifest["metric"], files)


def _steps(folder: Path) -> list[Path]:
    """The directories of checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = [(_STEP.fullmatch(entry.name), entry) for entry in folder.iterdir() if entry.is_dir()]
    named = [(int(match.group(1)), entry) for match, entry in found if match]
    return [entry for _, entry in sorted(named, reverse=True)]


def _newest_valid(paths: list[Path], warn: Warn) -> Checkpoint | None:
    for path in paths:
        try:
            checkpoint = open_checkpoint(path)
            checkpoint.verify()
        except CheckpointError as error:
            warn(f"Skipped a damaged checkpoint. {error}")
        else:
            return checkpoint
    return None


def latest_checkpoint(run_dir: str | Path, warn: Warn = _warn) -> Checkpoint | None:
    """The newest undamaged checkpoint of a run, or None; takes no lock."""
    return _newest_valid(_steps(Path(run_dir) / "checkpoints"), warn)


class CheckpointStore:
    """The checkpoints of one run: saved whole or not at all, pruned, found again.

    Parameters
    ----------
    run_dir
        The run's directory; checkpoints go to its `checkpoints` folder.
    keep_last
        How many of the newest are kept, at least 1.
    keep_best
        How many of those with the lowest metric are kept beside them (True is 1).
    warn
        Called with one sentence for each damaged checkpoint that is passed over.

    Raises
    ------
    CheckpointError
        When another store, in this or another process, has the directory open.

    Examples
    --------
    >>> import tempfile; run = tempfile.mkdtemp()
    >>> with CheckpointStore(run, keep_last=2) as store:
    ...     saved = store.save(10, lambda path: (path / "weights").touch(), {"seed": 1})
    >>> latest_checkpoint(run).step
    10
    """

    def __init__(
        self,
        run_dir: str | Path,
        keep_last: int = 3,
        keep_best: int | bool = True,
        warn: Warn = _warn,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ConfigError(
                f"keep_last is {keep_last} and keep_best {int(keep_best)}; at least 1 "
                "and 0 must be kept."
            )
        self.folder = Path(run_dir) / "checkpoints"
        self.keep_last = keep_last
        self.keep_best = int(keep_best)
        self._warn = warn
        self._lock: int | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._clean()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give up the lock; the operating system does so too however a process ends."""
        lock, self._lock = getattr(self, "_lock", None), None
        if lock is not None:
            os.close(lock)

    def _take_lock(self) -> None:
        path = self.folder / ".lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise CheckpointError(
                f"{self.folder} is in use by another training run (process {owner}). Wait for it, "
                "stop it, close its Trainer, or choose another output directory."
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        self._lock = handle

    def _clean(self) -> None:
        """Finish what a killed save left: put back what it had moved aside, remove the rest."""
        for entry in sorted(self.folder.iterdir()):
            if entry.name.startswith(".replaced-"):
                original = self.folder / entry.name.removeprefix(".replaced-")
                if not original.exists():
                    os.replace(entry, original)
                    continue
            elif not entry.name.startswith((".saving-", ".deleted-")):
                continue
            shutil.rmtree(entry)
        sync_directory(self.folder)

    def save(
        self,
        step: int,
        writer: Callable[[Path], None],
        meta: Mapping[str, Any],
        metric: float | None = None,
    ) -> Checkpoint:
        """Save a checkpoint: whole, or not at all.

        Parameters
        ----------
        step
            Training steps done; a checkpoint of the same step is replaced.
        writer
            Called with an empty directory into which it writes the files.
        meta
            Whatever belongs to it and is JSON.
        metric
            By which the best is chosen; lower is better.

        Raises
        ------
        CheckpointError
            When the files cannot be written (a full disk); earlier checkpoints are untouched.
        """
        if self._lock is None:
            raise CheckpointError(f"{self.folder}: this store is closed.")
        if step < 0:
            raise ConfigError(f"step is {step}, but steps count from 0.")
        if metric is not None and not math.isfinite(metric):
            self._warn(f"The metric of step {step} is {metric}; it cannot be the best.")
            metric = None
        name = f"step-{step:08d}"
        aside = self.folder / f".saving-{name}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            writer(aside)
            self._seal(aside, step, meta, metric)
            self._publish(aside, self.folder / name)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            if isinstance(error, OSError) or type(error) is OmnimaError:
                raise self._failure(name, error) from error
            raise
        self._prune(self.folder / name)
        return open_checkpoint(self.folder / name)

    def _failure(self, name: str, error: BaseException) -> CheckpointError:
        kept = _steps(self.folder)
        last = f"the last good one is {kept[0]}" if kept else "there was none before"
        free = shutil.disk_usage(self.folder).free
        return CheckpointError(
            f"Checkpoint {name} could not be saved: {error} ({free / 1e6:.0f} MB free there). "
            f"What was written of it is removed; {last}. Free some space and resume."
        )

    def _seal(self, aside: Path, step: int, meta: Mapping[str, Any], metric: float | None) -> None:
        """Flush every file and directory, then write the manifest."""
        files = {}
        for root, folders, names in os.walk(aside):
            for name in sorted(names):
                file = Path(root) / name
                if file.is_symlink() or not file.is_file():
                    raise CheckpointError(
                        f"{file} is not a plain file: a checkpoint holds files only."
                    )
                sync_file(file)
                relative = file.relative_to(aside).as_posix()
                files[relative] = {"size": file.stat().st_size, "sha256": _digest(file)}
            for folder in folders:
                sync_directory(Path(root) / folder)
        if not files:
            raise CheckpointError(f"The writer of step {step} wrote no files.")
        if _MANIFEST in files:
            raise CheckpointError(
                f"The name {_MANIFEST} is the store's own; call the file otherwise."
            )
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "step": step,
            "metric": metric,
            "meta": dict(meta),
            "files": files,
        }
        try:
            manifest["sha256"] = _manifest_digest(manifest)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"meta of step {step} is not plain JSON: {error}.") from error
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_durably(aside / _MANIFEST, text.encode("utf-8"))

    def _publish(self, aside: Path, final: Path) -> None:
        """Rename into place; one of the same step goes aside first, mended after a kill."""
        if not final.exists():
            os.replace(aside, final)
            sync_directory(self.folder)
            return
        replaced = self.folder / f".replaced-{final.name}"
        os.replace(final, replaced)
        os.replace(aside, final)
        sync_directory(self.folder)
        shutil.rmtree(replaced)

    def _prune(self, saved: Path) -> None:
        steps = _steps(self.folder)
        # Those ahead are damaged ones that the run passed over: they crowd out none of its own.
        own = steps.index(saved)
        kept = set(steps[: own + self.keep_last]) | {
            best.path for best in self._ranked()[: self.keep_best]
        }
        for path in steps:
            if path not in kept:
                # Renamed first: a kill must not leave half a checkpoint under its name.
                doomed = self.folder / f".deleted-{path.name}"
                shutil.rmtree(doomed, ignore_errors=True)
                os.replace(path, doomed)
                shutil.rmtree(doomed)
        sync_directory(self.folder)

    def _ranked(self) -> list[Checkpoint]:
        """Those with a metric, best first; of equals the newer."""
        found = []
        for path in _steps(self.folder):
            with contextlib.suppress(CheckpointError):  # `latest` reports the damaged ones
                found.append(open_checkpoint(path))
        scored = [(one.metric, -one.step, one) for one in found if one.metric is not None]
        return [one for _, _, one in sorted(scored, key=lambda item: item[:2])]

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that passes `verify`; damaged ones are reported and passed over."""
        return _newest_valid(_steps(self.folder), self._warn)

    def best(self) -> Checkpoint | None:
        """The one with the lowest metric that passes `verify`; damaged ones are reported."""
        return _newest_valid([one.path for one in self._ranked()], self._warn)
