"""`--find-lr`: a short run in which the learning rate rises from far too small to far too large
(Smith 2017, "Cyclical Learning Rates for Training Neural Networks").
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from omnima.errors import NonFiniteError, OmnimaError
from omnima.training.budget import Budget
from omnima.training.display import Display
from omnima.training.launch import assemble
from omnima.training.objective import training_loader
from omnima.training.precision import choose_precision
from omnima.training.recipe import Recipe
from omnima.training.rundir import RunDirectory
from omnima.training.stepper import step_options
from omnima.training.trainer import Trainer, out_of

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
_SMOOTHING = 0.9
_RUINED = 1.5  # times the lowest loss: the rates above it are of no interest
_SAFE = 0.1  # of the rate with the lowest loss


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """What a search found.

    Parameters
    ----------
    lr
        The suggestion: a tenth of the rate at which the smoothed loss was lowest.
    rates, losses
        The curve: each step's learning rate and the smoothed loss after it, in nats.
    """

    lr: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def find_lr(recipe: Recipe, display: Display | None = None) -> LearningRates:
    """Search with a recipe's text, model, batches and optimizer, in `out/find-lr`.

    Raises
    ------
    OmnimaError
        Not even the smallest rates leave the loss finite.
    """
    display = display if display is not None else Display()
    training = dataclasses.replace(recipe.train, out=str(out_of(recipe.train) / "find-lr"))
    recipe = dataclasses.replace(recipe, train=training)
    directory = RunDirectory(out_of(training))
    directory.claim(recipe.values(), recipe.identity(), overwrite=True)
    try:
        return search(assemble(recipe, directory, display))
    finally:
        directory.release()


def search(trainer: Trainer, steps: int = STEPS) -> LearningRates:
    """Search with a trainer whose data is prepared; its model's weights are as before afterwards.

    The rate rises by the same factor from step to step; the search ends early where the loss has
    risen to 1.5 times its lowest value or is not finite.
    """
    step, loader = _constant_step(trainer)
    weights = step.state()["weights"].clone()
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    try:
        for number in range(steps):
            rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(1, steps - 1))
            step.set_lr(rate)
            loss = float(step.run(loader).loss)
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            rates.append(rate)
            losses.append(mean / (1 - _SMOOTHING ** (number + 1)))
            if losses[-1] > _RUINED * min(losses):
                break
    except NonFiniteError as error:
        if not losses:
            raise OmnimaError(
                f"No learning rate can be found: the first loss is not finite. {error}"
            ) from error
    finally:
        step.state()["weights"].copy_(weights)
    best = min(range(len(losses)), key=losses.__getitem__)
    return LearningRates(_round(rates[best] * _SAFE), tuple(rates), tuple(losses))


def _constant_step(trainer: Trainer) -> tuple[Any, Any]:
    from omnima import _core

    config, model = trainer.config, trainer.model
    context = config.context or model.context
    precision = config.precision
    if precision == "auto":
        precision = choose_precision(model.config, context, model.device).precision
    plain = dataclasses.replace(
        config, schedule="constant", warmup=0, ramp_steps=0, ema_decay=0.0, freeze=()
    )
    options = step_options(plain, precision, Budget(STEPS), model.core)
    step = _core.TrainStep(model.core, options)
    loader = training_loader(trainer.data, config, trainer.tokenizer, config.batch_size, context)
    return step, loader


def _round(rate: float) -> float:
    """To two digits."""
    return round(rate, 1 - math.floor(math.log10(rate)))


def sentence(found: LearningRates) -> str:
    """Write the result of a search as a sentence."""
    return (
        f"Try --lr {found.lr:g}: the smoothed loss was lowest ({min(found.losses):.3f}) at ten "
        f"times that, and the search went up to {found.rates[-1]:.2g}."
    )
