"""`--repeat`: does a run again from its directory alone, and says whether it came out the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnima.errors import CheckpointError, ConfigError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.memory_choice import kept_choice
from omnima.training.precision import PrecisionChoice
from omnima.training.recipe import Recipe
from omnima.training.run import Run
from omnima.training.rundir import RunDirectory

_COMPARED = ("loss", "val_loss", "grad_norm", "lr")
_MODEL = "model.safetensors"


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
        """Whether every number and the weights came out the same."""
        return self.first_difference is None and self.same_weights is not False

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {"identical": self.identical, **dataclasses.asdict(self)}

    def sentence(self) -> str:
        """Say the comparison."""
        if self.identical:
            weights = " and the weights" if self.same_weights else ""
            return f"The same run: all {self.steps} records{weights} are those of {self.run}."
        place = "only the weights differ"
        if self.first_difference is not None:
            place = f"step {self.first_difference} is the first that differs"
        why = "; ".join(self.surroundings) or "versions, threads and kernels are the same"
        return f"Not the same run as {self.run}: {place} ({why})."


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
        Recipe keys, of which `out` must be given; others only where they change no weight.
    overwrite
        Replace what is in `out`.
    display
        Where progress goes.

    Raises
    ------
    ConfigError
        The directory holds no run, the run ended on the clock, a flag would make it another run, or
        its text is not the same any more.
    """
    import torch

    display = display if display is not None else Display()
    first = RunDirectory(run)
    facts, started = _provenance(first)
    recipe = _again(first, flags, sets, started)
    for said in (different := _surroundings(started)):
        display.note(f"Repeating {first.path}: {said}.")
    before = torch.get_num_threads()
    torch.set_num_threads(int(started["machine"]["threads"]))
    try:
        done = train(recipe, overwrite=overwrite, display=display, like=(first, _files(facts)))
    finally:
        torch.set_num_threads(before)
    return done, _compare(first, RunDirectory(done.path), different)


def with_choices(recipe: Recipe, done: RunDirectory) -> Recipe:
    """Return a recipe with the number format and the memory choice of a run in their places."""
    precision = PrecisionChoice.read(done.precision).precision
    training = dataclasses.replace(recipe.train, precision=precision)
    chosen = kept_choice(done)
    return dataclasses.replace(recipe, train=training if chosen is None else chosen.apply(training))


def _provenance(first: RunDirectory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return provenance.json and its last session that began at the beginning."""
    path = first.path / "provenance.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        started = [each for each in facts["sessions"] if each["from_step"] == 0][-1]
        return facts, {"directory": started["directory"], **started}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{first.path} holds no run that can be repeated: its provenance.json cannot be read "
            f"({type(error).__name__}: {error}). A run writes it before its first step."
        ) from error


def _again(
    first: RunDirectory, flags: Mapping[str, Any], sets: Sequence[str], started: Mapping[str, Any]
) -> Recipe:
    given = {key: value for key, value in flags.items() if value is not None}
    recipe = Recipe.from_layers(given, sets, first.config)
    if recipe.train.out is None or Path(recipe.train.out).resolve() == first.path.resolve():
        raise ConfigError(f"Say where the repetition goes: --out {first.path}-again, for example.")
    kept, now = first.recall("recipe") or {}, json.loads(json.dumps(recipe.identity()))
    changed = [key for key in now if key in kept and kept[key] != now[key]]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)} would make it another run than {first.path}: leave that out, or "
            f"vary the run with --config {first.path} in the place of --repeat."
        )
    if recipe.train.minutes is not None:
        raise ConfigError(
            f"The run in {first.path} ended on the clock (--minutes), which also set its learning "
            "rates, so no repetition has the same bits. Train with --config "
            f"{first.path} --out DIRECTORY, for as long or with --steps."
        )
    return _found(with_choices(recipe, first), Path(started["directory"]))


def _found(recipe: Recipe, place: Path) -> Recipe:
    """Return the recipe with paths that are relative to where the run was started."""

    def path(spec: str) -> str:
        here = Path(spec)
        elsewhere = not here.is_absolute() and not _matches(Path.cwd(), spec)
        return str(place / spec) if elsewhere and _matches(place, spec) else spec

    changes: dict[str, Any] = {"data": tuple(path(each) for each in recipe.data)}
    changes["tokenizer"] = path(recipe.tokenizer)
    if recipe.clean is not None:
        changes["clean"] = path(recipe.clean)
    return dataclasses.replace(recipe, **changes)


def _matches(place: Path, spec: str) -> bool:
    return (place / spec).exists() or any(place.glob(spec))


def _files(facts: Mapping[str, Any]) -> str:
    """Name the files of a run's text."""
    names = [Path(str(each["path"])).name for each in facts["data"]["files"]]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _surroundings(started: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which versions and kernels are not those of the run; its threads are taken over."""
    from omnima import _core
    from omnima.training.provenance import versions

    now = {**versions(), "kernels": str(_core.cpu_level())}
    before = {**started["versions"], "kernels": started["machine"]["kernels"]}
    return tuple(
        f"{name} {before[name]} there, {now.get(name, 'none')} here"
        for name in ("omnima", "torch", "kernels")
        if before.get(name) not in (None, now.get(name))
    )


def _compare(first: RunDirectory, second: RunDirectory, different: tuple[str, ...]) -> Repetition:
    there, here = _records(first), _records(second)
    steps = [step for step in there if step in here]
    unlike = next((step for step in steps if there[step] != here[step]), None)
    digests = [_digest(each.path / _MODEL) for each in (first, second)]
    same = None if digests[0] is None else digests[0] == digests[1]
    return Repetition(str(first.path), len(steps), unlike, same, different)


def _records(directory: RunDirectory) -> dict[int, tuple[Any, ...]]:
    try:
        lines = directory.metrics.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return {int(each["step"]): tuple(map(each.get, _COMPARED)) for each in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory.metrics} cannot be read ({error}): there is nothing to compare with."
        ) from error


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
