"""The runs of a directory as the page offers them: which can go on, and whose model can be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, OmnimaError
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.recipe import Recipe
from omnima.training.rundir import RunDirectory

MOST = 200  # runs that are offered, the newest
_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class PastRun:
    """A run of a directory.

    Attributes
    ----------
    name
        Of its directory.
    path
        Its directory.
    step, of
        Steps that are saved, and those of the whole run; 0: budgeted otherwise.
    state
        "finished", "stopped" (by somebody, its model saved) or "unfinished".
    """

    name: str
    path: Path
    step: int
    of: int
    state: str

    @property
    def can_go_on(self) -> bool:
        """Whether there is anything left to train."""
        return self.state != "finished"

    @property
    def label(self) -> str:
        """What a list says of it.

        >>> PastRun("long", Path("runs/long"), 120, 300, "stopped").label
        'long: stopped at step 120 of 300'
        """
        if self.state == "finished":
            return f"{self.name}: finished at step {self.step}"
        said = "stopped" if self.state == "stopped" else "not finished, saved"
        return f"{self.name}: {said} at step {self.step}" + (f" of {self.of}" if self.of else "")

    def recipe(self) -> dict[str, Any]:
        """Return what it was started with, to be continued where it lies now.

        Raises
        ------
        ConfigError
            Its recipe cannot be read, or there is nothing left to train.
        """
        if not self.can_go_on:
            raise ConfigError(
                f"“{self.name}” is finished: its {self.step} steps are done, or its held-out loss "
                "fell no further. Start a new run for more, or talk to its model."
            )
        return {**_recipe_of(self.path).values(), "out": str(self.path)}

    def model(self) -> Path:
        """Return the directory of its model: that of its end, or of its newest checkpoint.

        Raises
        ------
        ConfigError
            Nothing of it is saved yet.
        """
        if self.state != "unfinished":
            return self.path
        found = latest_checkpoint(self.path, warn=lambda _: None)
        if found is None or not (found.path / "model").is_dir():
            raise ConfigError(f"Nothing of “{self.name}” is saved yet: resume it first.")
        return found.path / "model"


def past_runs(runs: Path) -> list[PastRun]:
    """Return the runs that learn from text in a directory, the newest first; what is no such run
    is left out.
    """
    if not runs.is_dir():
        return []
    found = [each for each in runs.iterdir() if (each / "config.yaml").is_file()]
    found.sort(key=_changed, reverse=True)
    return [run for path in found[:MOST] if (run := read_run(path)) is not None]


def find_run(runs: Path, name: Any) -> PastRun:
    """Return a run by its name, which must be one of those that are there.

    Raises
    ------
    ConfigError
        It is not.
    """
    for each in past_runs(runs):
        if each.name == name:
            return each
    raise ConfigError(
        f"There is no run {str(name)!r:.80} in {runs}." if name else "Choose a run first."
    )


def read_run(path: Path) -> PastRun | None:
    """Return what a directory holds; None where it is no run that learns from text."""
    try:
        of = _recipe_of(path).train.steps or 0
    except (OmnimaError, OSError):
        return None  # of another kind, or somebody else's file of that name
    steps, state = _newest_state(path)
    summary = _read(RunDirectory(path).summary)
    if not summary:
        return PastRun(path.name, path, steps, of, "unfinished")
    done = int(summary.get("steps") or 0)
    left = of > done and steps == done and not _waited_enough(path, state)
    return PastRun(path.name, path, done, of, "stopped" if left else "finished")


def _recipe_of(path: Path) -> Recipe:
    config = RunDirectory(path).config
    if config.stat().st_size > _CONFIG_BYTES:
        raise ConfigError(f"{config} is too large for a recipe.")
    return Recipe.from_layers({}, config=config)


def _changed(path: Path) -> float:
    try:
        return (path / "run.json").stat().st_mtime
    except OSError:
        return 0.0


def _newest_state(path: Path) -> tuple[int, Mapping[str, Any]]:
    """The step and the state of the newest checkpoint, whose files are not read for a list."""
    places = sorted((path / "checkpoints").glob("step-*/state.json"))
    state = _read(places[-1]) if places else {}
    return int(state.get("step") or 0), state


def _waited_enough(path: Path, state: Mapping[str, Any]) -> bool:
    """Whether patience has ended the run: it would end again at once."""
    patience = _recipe_of(path).train.patience
    waited = (state.get("early_stop") or {}).get("waited") or 0
    return 0 < patience <= int(waited)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # not there, or cut short: as if it were not
    return found if isinstance(found, dict) else {}
