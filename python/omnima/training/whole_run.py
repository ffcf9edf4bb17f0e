"""A run from its claimed directory to its end, whichever kind of recipe it follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from omnima._device import check_device, check_offload
from omnima.training.callbacks.handler import named
from omnima.training.callbacks.trackers import make_trackers
from omnima.training.config import TrainConfig
from omnima.training.display import Display
from omnima.training.run import Run
from omnima.training.rundir import RunDirectory
from omnima.training.trainer import Trainer, out_of


class AnyRecipe(Protocol):
    """What every kind of recipe says."""

    @property
    def train(self) -> TrainConfig: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    def values(self) -> dict[str, Any]: ...  # noqa: D102
    def identity(self) -> dict[str, Any]: ...  # noqa: D102


def whole_run(
    recipe: AnyRecipe,
    assemble: Callable[[RunDirectory, Display], Trainer],
    *,
    resume: bool,
    overwrite: bool,
    display: Display | None,
    stop_after: int | None,
    callbacks: Sequence[Any],
    like: tuple[RunDirectory, str] | None = None,
) -> Run:
    """Claim the directory, let `assemble` build the trainer, and train.

    A run that is finished already is given as it is; parameters as for
    :func:`omnima.training.launch.train`.
    """
    check_device(recipe.device)
    display = display if display is not None else Display()
    # Before the text is read: a misspelt event, a package that is missing.
    named([*callbacks, *make_trackers(recipe.train.track)])
    directory = RunDirectory(out_of(recipe.train))
    directory.claim(recipe.values(), recipe.identity(), resume=resume, overwrite=overwrite)
    try:
        # After the claim: the run's own directory will do, too.
        check_offload(recipe.train.offload_optimizer, recipe.device)
        if resume and directory.summary.exists():
            display.note(f"The run in {directory.path} is already finished.")
            return Run.load(directory.path)
        trainer = assemble(directory, display)
        return trainer.fit(resume=resume, stop_after=stop_after, like=like)
    finally:
        directory.release()
