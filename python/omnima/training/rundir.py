"""The run's directory: what lies where, who may write, and whether a resumed run is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from omnima._durable import write_durably
from omnima.errors import CheckpointError, ConfigError
from omnima.training.config import TrainConfig

_OURS = (
    "config.yaml",
    "run.json",
    "precision.json",
    "foresight.json",
    "metrics.jsonl",
    "summary.json",
    "checkpoints",
    "samples.txt",
    "samples",
    "alerts.jsonl",
    "provenance.json",
    "uncommitted.patch",
    "trackers.json",
    "tensorboard",
    "wandb",
    "mlruns",
    "loss.png",
    "model.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "reference.safetensors",
    "report.json",
    "report.md",
)
# What there is from the first step on.
_TRAINED = ("metrics.jsonl", "checkpoints", "summary.json", "model.safetensors")


def write_text(path: Path, text: str) -> None:
    """Write a text at once: a kill leaves the old one or the new one."""
    write_durably(path, text.encode("utf-8"))


class RunDirectory:
    """One run's place on disk. `claim` it before writing; `release` it at the end.

    Layout: config.yaml (the recipe, usable with --config), run.json (identity), precision.json
    (the number format and why), foresight.json (what was predicted and what came), provenance.json
    (what it takes to repeat the run), metrics.jsonl, alerts.jsonl, samples/ (on the way),
    checkpoints/, tokenizer/, data/ (token shards), loss.png, samples.txt, report.md and report.json
    (of fine-tuning: before and after), summary.json, and at the end the model itself as a Hugging
    Face directory at the top.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    @property
    def config(self) -> Path:
        """The recipe of the run."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The run's numbers, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The result; only a finished run has it."""
        return self.path / "summary.json"

    @property
    def precision(self) -> Path:
        """The number format of the run, and why it was chosen."""
        return self.path / "precision.json"

    @property
    def tokenizer(self) -> Path:
        """Where the run's own tokenizer is saved before training starts."""
        return self.path / "tokenizer"

    @property
    def data(self) -> Path:
        """The token shards."""
        return self.path / "data"

    def claim(
        self,
        values: Mapping[str, Any],
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Make the directory this run's own and write its recipe.

        What a run left that was refused before its first step is replaced without being asked; its
        token shards are used again where they fit.

        Raises
        ------
        ConfigError
            Another run is here and neither resume nor overwrite was asked, the recipe differs from
            the one being resumed, or the directory cannot be written.
        """
        if resume and overwrite:
            raise ConfigError("resume and overwrite contradict each other: give one of them.")
        self._make()
        self._take_lock()
        holds = [name for name in _OURS if (self.path / name).exists()]
        # Without run.json the files are somebody else's.
        refused = "run.json" in holds and not any(name in holds for name in _TRAINED)
        if holds and not (resume or overwrite or refused):
            self.release()
            raise ConfigError(
                f"{self.path} already holds a run ({', '.join(holds)}). Continue it with --resume, "
                "replace it with --overwrite, or choose another --out."
            )
        if overwrite or (refused and not resume):
            self._clear()
        try:
            if resume and self.config.exists():
                self.check_identity("recipe", identity)
        except (ConfigError, CheckpointError):
            self.release()
            raise
        self.remember("recipe", identity)
        write_text(
            self.config,
            yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True),
        )

    def release(self) -> None:
        """Let others write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remember(self, part: str, facts: Mapping[str, Any]) -> None:
        """Store facts that a resumed run must find unchanged, under a name."""
        known = self._known()
        known[part] = json.loads(json.dumps(dict(facts)))
        write_text(self.path / "run.json", json.dumps(known, indent=2, ensure_ascii=False) + "\n")

    def recall(self, part: str) -> dict[str, Any] | None:
        """Return the facts remembered under a name; None where there are none."""
        return self._known().get(part)

    def check_identity(self, part: str, facts: Mapping[str, Any]) -> None:
        """Raise a ConfigError that names every fact that differs from the remembered ones."""
        if changed := self.differences(part, facts):
            raise ConfigError(
                f"The run in {self.path} was started differently ({'; '.join(changed)}). Resume it "
                "with the same values, or train into another directory."
            )

    def differences(self, part: str, facts: Mapping[str, Any]) -> list[str]:
        """Name every fact that differs from the remembered ones, if any are.

        A field that is newer than the run counts there as its default, which is what the run did.
        """
        before = self._known().get(part)
        if before is None:
            return []
        before = {**_defaults(facts), **before}
        now = json.loads(json.dumps(dict(facts)))
        return [
            f"{key}: {before.get(key)!r} there, {now.get(key)!r} here"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]

    def _known(self) -> dict[str, Any]:
        path = self.path / "run.json"
        if not path.exists():
            return {}
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(
                f"{path} is damaged ({error}); the run cannot be continued. Train into another "
                "directory, or start over with --overwrite."
            ) from error
        return dict(known)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write-test"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"The output directory {self.path} cannot be written: {error.strerror or error}. "
                "Choose another --out."
            ) from error

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; there two runs in one directory are not caught
            return
        lock = open(self.path / ".lock", "w", encoding="utf-8")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"Another process is training in {self.path}. Wait for it or choose another --out."
            ) from error
        self._lock = lock

    def _clear(self) -> None:
        for name in (*_OURS, "tokenizer"):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


def _defaults(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of those facts that are fields of a recipe or of a model."""
    from omnima._core import DecoderConfig
    from omnima.training.finetune_recipe import FineTuneRecipe
    from omnima.training.recipe import Recipe
    from omnima.training.schema import fields_of

    fields = {**fields_of(FineTuneRecipe), **fields_of(Recipe), **fields_of(TrainConfig)}
    known = {name: field.default for name, field in fields.items()}
    known |= {f"model.{field.name}": field.default for field in DecoderConfig.fields()}
    return {name: value for name, value in known.items() if name in facts}
