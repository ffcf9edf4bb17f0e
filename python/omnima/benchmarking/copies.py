"""The same weights as each peer wants them: made once, each by a process of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.errors import OmnimaError

_WEIGHTS = (".safetensors", ".gguf", ".json")


class Copies:
    """The copies of one model in a directory, which may hold those of others, too."""

    def __init__(self, model: Path, directory: Path) -> None:
        self._model = model
        self._place = directory / f"{model.name}-{_state_of(model)}"
        self._failed: dict[str, str] = {}

    def get(self, kind: str) -> Path:
        """Return a copy, made now if it is not there.

        Raises
        ------
        SystemFailed
            When it cannot be made, with the reason.
        """
        path = self._place / (f"{kind}.gguf" if kind.startswith("gguf-") else kind)
        if path.exists():
            return path
        if kind in self._failed:
            raise SystemFailed(self._failed[kind])
        try:
            base = self.get("hf") if kind.startswith("ct2-") else None
            self._make(kind, path, base)
        except SystemFailed as failed:
            self._failed[kind] = str(failed)
            raise
        return path

    def _make(self, kind: str, path: Path, base: Path | None) -> None:
        self._place.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{os.getpid()}.{path.name}")
        request = {"model": str(self._model), "kind": kind, "to": str(aside)}
        try:
            with WorkerProcess() as worker:
                worker.ask({"do": "copy", **request, "base": None if base is None else str(base)})
            _put(aside, path)
        finally:
            if aside.is_dir():
                shutil.rmtree(aside)
            aside.unlink(missing_ok=True)


def _put(made: Path, path: Path) -> None:
    try:
        os.replace(made, path)
    except OSError:
        if not path.exists():  # else another run was quicker, with the same
            raise


def _state_of(model: Path) -> str:
    """A short text that is another one when the model's files have changed."""
    files = [model] if model.is_file() else sorted(model.iterdir())
    digest = hashlib.sha256(str(model.resolve()).encode())
    for each in files:
        if each.suffix in _WEIGHTS:
            found = each.stat()
            digest.update(f"{each.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def make_copy(model: str, kind: str, to: str, base: str | None) -> None:
    """Write one copy: "hf", "gguf-<type>" or "ct2-<type>" (that one from the copy "hf")."""
    how, _, dtype = kind.partition("-")
    if how == "ct2":
        _convert(str(base), dtype, to)
        return
    from omnima.hub.fields import architecture_of
    from omnima.model import Model

    given = Model.from_pretrained(model)
    if how == "gguf":
        given.save_gguf(to, dtype=dtype)
        return
    if architecture_of(given.config.to_dict()).name == "OmnimaForCausalLM":
        raise OmnimaError("no architecture of transformers is exactly this model")
    given.save_pretrained(to)


def _convert(directory: str, dtype: str, to: str) -> None:
    import ctranslate2

    kind = ctranslate2.converters.TransformersConverter
    kind(directory).convert(to, quantization=dtype, force=True)
