"""`--repeat`: does a run again from its directory alone, and says whether it came out the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnima._machine import threads_in_use
from omnima.errors import CheckpointError, ConfigError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.memory_choice import kept_choice
from omnima.training.precision import PrecisionChoice
from omnima.training.recipe import TOKENIZERS, Recipe
from omnima.training.records import read_records
from omnima.training.run import Run
from omnima.training.rundir import RunDirectory
from omnima.training.schema import fields_of

_COMPARED = ("loss", "val_loss", "grad_norm", "lr")
_MODEL = "model.safetensors"
# No part of a run's identity, yet the result depends on them.
_SHAPING = ("device", "patience", "restore_best", "eval_every", "eval_batches")
_MOST_THREADS = 1 << 16

_Records = dict[int, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Repetition:
    """How a repeated run compares with the first one.

    Parameters
    ----------
    run
        The directory of the first.
    steps
        Records of metrics.jsonl that were compared: losses, gradient norms and rates.
    first_difference
        The first step whose record differs in a bit; None where none does.
    same_weights
        Whether the saved models are the same bytes; None where the first run was not finished.
    surroundings
        What differs of versions, threads and kernels, as sentences.
    """

    run: str
    steps: int
    first_difference: int | None
    same_weights: bool | None
    surroundings: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether something was compared, and every number and the weights came out the same."""
        compared = self.steps > 0 or self.same_weights is not None
        return compared and self.first_difference is None and self.same_weights is not False

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {"identical": self.identical, **dataclasses.asdict(self)}

    def sentence(self) -> str:
        """Say the comparison."""
        if self.identical:
            same = [f"all {self.steps} records"] if self.steps else []
            same += ["the weights"] if self.same_weights else []
            return f"The same run: {' and '.join(same)} are those of {self.run}."
        if not self.steps and self.same_weights is None:
            return f"Nothing was compared: {self.run} has no weights and no step of this run."
        place = "only the weights differ"
        if self.first_difference is not None:
            place = f"step {self.first_difference} is the first that differs"
        why = "; ".join(self.surroundings) or "versions, threads and kernels are the same"
        return f"Not the same run as {self.run}: {place} ({why})."


@dataclasses.dataclass(frozen=True)
class _Start:
    """How a run was begun, by its provenance.json; `files` names its text."""

    directory: Path
    threads: int
    versions: dict[str, Any]
    kernels: str
    files: str


def repeat(
    run: str | Path,
    flags: Mapping[str, Any],
    sets: Sequence[str] = (),
    *,
    overwrite: bool = False,
    display: Display | None = None,
) -> tuple[Run, Repetition]:
    """Train again what a run's directory describes, into another directory, and compare.

    Precision and what a memory budget left to be chosen are taken from the run and not chosen anew;
    so is the number of threads, on which the order of sums depends.

    Parameters
    ----------
    run
        The directory of the run.
    flags, sets
        Recipe keys, of which `out` must be given; others only where they do not change the result.
    overwrite
        Replace what is in `out`.
    display
        Where progress goes.

    Raises
    ------
    ConfigError
        The directory holds no run or nothing to compare with, the run was made from Python or ended
        on the clock, a flag would make it another run, or its text is not the same any more.
    """
    display = display if display is not None else Display()
    first = RunDirectory(run)
    started = _start(first)
    recipe = _again(first, flags, sets, started)
    there, weights = _comparable(first, recipe)
    for said in (different := _surroundings(started)):
        display.note(f"Repeating {first.path}: {said}.")
    with threads_in_use(started.threads):
        done = train(recipe, overwrite=overwrite, display=display, like=(first, started.files))
    here = _records(RunDirectory(done.path))
    steps = [step for step in there if step in here]
    unlike = next((step for step in steps if _differ(there[step], here[step])), None)
    same = None if weights is None else weights == _digest(done.path / _MODEL)
    return done, Repetition(str(first.path), len(steps), unlike, same, different)


def with_choices(recipe: Recipe, done: RunDirectory) -> Recipe:
    """Return a recipe with the number format and the memory choice of a run in their places."""
    precision = PrecisionChoice.read(done.precision).precision
    training = dataclasses.replace(recipe.train, precision=precision)
    chosen = kept_choice(done)
    return dataclasses.replace(recipe, train=training if chosen is None else chosen.apply(training))


def _start(first: RunDirectory) -> _Start:
    """Read from provenance.json the last session that began at the beginning."""
    path = first.path / "provenance.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        began = [each for each in facts["sessions"] if each["from_step"] == 0][-1]
        threads = began["machine"]["threads"]
        if not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"threads is {threads!r}")
        names = [Path(each["path"]).name for each in facts["data"]["files"]]
        return _Start(
            Path(began["directory"]),
            threads,
            dict(began["versions"]),
            began["machine"]["kernels"],
            ", ".join(names[:5]) + (", …" if len(names) > 5 else ""),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{first.path} holds no run that can be repeated: its provenance.json cannot be read "
            f"({type(error).__name__}: {error}). A run writes it before its first step."
        ) from error


def _again(
    first: RunDirectory, flags: Mapping[str, Any], sets: Sequence[str], started: _Start
) -> Recipe:
    from omnima.data.described import read_description

    given = {key: value for key, value in flags.items() if value is not None}
    named = {key.partition("=")[0].strip().replace("-", "_") for key in (*given, *sets)}
    if "data" not in read_description(first.config, "recipe"):
        raise ConfigError(
            f"The run in {first.path} was made from Python; run its script again. Its config.yaml "
            "holds the training alone, neither text nor model."
        )
    before = Recipe.from_layers({}, (), first.config)
    recipe = Recipe.from_layers(given, sets, first.config)
    out = recipe.train.out if "out" in named else None  # never that of the first
    if not out or Path(out).resolve() == first.path.resolve():
        raise ConfigError(f"Say where the repetition goes: --out {first.path}-again, for example.")
    changed = first.differences("recipe", recipe.identity())
    old, new = before.values(), recipe.values()
    changed += [
        f"{key}: {old[key]!r} there, {new[key]!r} here" for key in _SHAPING if old[key] != new[key]
    ]
    if changed:
        raise ConfigError(
            f"It would be another run than {first.path} ({'; '.join(changed)}): leave that out, or "
            f"vary the run with --config {first.path} in the place of --repeat."
        )
    if recipe.train.minutes is not None:
        raise ConfigError(
            f"The run in {first.path} ended on the clock (--minutes), which also set its learning "
            "rates, so no repetition has the same bits. Train with --config "
            f"{first.path} --out DIRECTORY, for as long or with --steps."
        )
    return _found(with_choices(recipe, first), started.directory, named)


def _found(recipe: Recipe, place: Path, named: set[str]) -> Recipe:
    """Return the recipe with the run's relative paths read from where it was started.

    Those that are named now are read from here.
    """
    from omnima.data.cleaning import RECIPES
    from omnima.data.mixture import from_folder
    from omnima.data.sources import is_built_in

    changes: dict[str, Any] = {}
    if "data" not in named:
        data = (each if is_built_in(each) else from_folder(each, place) for each in recipe.data)
        changes["data"] = tuple(data)
    values = recipe.values()
    for key, names in (
        ("tokenizer", TOKENIZERS),
        ("clean", RECIPES),
        ("curriculum", ("length",)),
        ("offload_optimizer", ("cpu",)),
    ):
        if values[key] is not None and values[key] not in names and key not in named:
            changes[key] = from_folder(values[key], place)
    training = {key: changes.pop(key) for key in fields_of(type(recipe.train)) if key in changes}
    return dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, **training), **changes
    )


def _comparable(first: RunDirectory, recipe: Recipe) -> tuple[_Records, str | None]:
    """Return the first run's records and the hash of its weights, one of which must be of use."""
    records, weights = _records(first), _digest(first.path / _MODEL)
    every = recipe.train.log_every
    again = any(
        step % every == 0 or record.get("val_loss") is not None for step, record in records.items()
    )
    if weights is None and not again:
        raise ConfigError(
            f"There is nothing to compare a repetition of {first.path} with: it saved no model, "
            f"and its metrics.jsonl holds no step that a log_every of {every} would record. Finish "
            "the run with --resume, or leave log_every out."
        )
    return records, weights


def _surroundings(started: _Start) -> tuple[str, ...]:
    """Say which versions and kernels are not those of the run; its threads are taken over."""
    from omnima import _core
    from omnima.training.provenance import versions

    now = {**versions(), "kernels": str(_core.cpu_level())}
    before = {**started.versions, "kernels": started.kernels}
    return tuple(
        f"{name} {before[name]} there, {now.get(name, 'none')} here"
        for name in ("omnima", "torch", "kernels")
        if before.get(name) not in (None, now.get(name))
    )


def _differ(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether two records differ; a held-out loss that only one of them measured does not count."""
    return any(
        there.get(key) != here.get(key)
        for key in _COMPARED
        if key != "val_loss" or None not in (there.get(key), here.get(key))
    )


def _records(directory: RunDirectory) -> _Records:
    if not directory.metrics.exists():
        return {}
    try:
        return {int(each["step"]): dict(each) for each in read_records(directory.metrics)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory.metrics} cannot be read ({error!r}): there is nothing to compare with."
        ) from error


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
