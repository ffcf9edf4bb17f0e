"""The loss of a larger run from a few small ones: L = E + A / N^a + B / D^b (Hoffmann and others,
*Training Compute-Optimal Large Language Models*, 2022, eq. 2), with an interval.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import numbers
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnima.errors import CheckpointError, ConfigError
from omnima.planning.curves import Curves, Values, joined, nonnegative

_FEWEST = 3
_EXPONENTS = np.round(np.arange(0.05, 1.2001, 0.05), 4)
# Around the best of these the search goes on in ever smaller steps, down to the last.
_FIRST_STEP, _LAST_STEP = 0.025, 0.0005
_LEAST_EXPONENT = 0.01
_MOVES = 400
# Squared errors that differ by less are alike: losses are not known to a millionth.
_ALIKE = 1e-12
# Two values of a term fit any exponent: then these are taken, rounded from the paper's table 2.
_USUAL = (0.34, 0.28)
# Two runs that differ by the seed alone differ by about so much, in nats a token.
_SEED_NOISE = 0.005
# 97.5% points of Student's t by degrees of freedom; above the last: 1.96.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

_NOT_JUDGED = (
    "{runs} runs of different sizes or lengths are no more than the curve has parameters, so it "
    "fits them exactly and nothing shows whether it holds; the interval rests on the usual noise "
    "of seeds alone. Add shorter or smaller runs."
)
_ASSUMED = (
    "The runs have only two {what}, which cannot tell the exponent {exponent}: the curve takes a "
    "usual one, {value}, and the interval spans {least} to {most}. Add runs of a third."
)
_TERMS = (("alpha", "sizes"), ("beta", "lengths"))


@dataclasses.dataclass(frozen=True)
class RunPoint:
    """The end of one run: parameters, tokens seen, held-out loss in nats a token."""

    parameters: int
    tokens: int
    loss: float
    name: str = ""
    tokenizer: str | None = None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A predicted loss with the interval that should hold it 19 times out of 20."""

    parameters: int
    tokens: int
    loss: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class ScalingFit:
    """A fitted curve.

    Attributes
    ----------
    irreducible, size, alpha, data, beta
        E, A, a, B and b of the formula; A or B is 0 where the runs do not tell it.
    noise
        The spread of the runs around the curve, in nats.
    to_spare
        Different sizes and lengths beyond as many as the curve has parameters: 0 where it fits all
        of them exactly, so that nothing shows whether it holds. A run with another seed is none.
    assumed
        Which of ``"alpha"`` and ``"beta"`` is a usual value, because the runs have only two sizes,
        or lengths. The interval spans all values.
    points
        The runs.
    """

    irreducible: float
    size: float
    alpha: float
    data: float
    beta: float
    noise: float
    to_spare: int
    assumed: tuple[str, ...]
    points: tuple[RunPoint, ...]
    _curves: Curves
    _student: float

    def predict(self, parameters: int, tokens: int) -> Forecast:
        """Return the loss of a run of so many parameters and tokens.

        The interval spans every curve that the runs do not rule out, each with the error of its
        coefficients and the spread of single runs.
        """
        curves, points = self._curves, self.points
        asked = RunPoint(parameters, tokens, 0.0)
        rows = _designs([asked], curves.exponents, points)[:, 0]
        used = curves.coefficients > 0
        parts = _designs(points, curves.exponents, points) * used[:, None, :]
        gram = np.linalg.pinv(np.swapaxes(parts, 1, 2) @ parts)
        spread = np.einsum("mi,mij,mj->m", rows * used, gram, rows * used)
        reach = self._student * self.noise * np.sqrt(1.0 + np.maximum(0.0, spread))
        middle = (rows * curves.coefficients).sum(axis=1)
        low, high = float((middle - reach).min()), float((middle + reach).max())
        return Forecast(parameters, tokens, float(middle[0]), max(0.0, low), high)


def read_run(directory: str | Path) -> RunPoint:
    """Read the end of a finished run.

    Raises
    ------
    CheckpointError
        The directory holds no finished run, or one without a held-out loss, or damaged numbers.
    """
    path = Path(directory)
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        loss, parameters, tokens = (summary[key] for key in ("val_loss", "parameters", "tokens"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} holds no finished run ({error}). Finish it with --resume, or leave it out."
        ) from error
    if loss is None:
        raise CheckpointError(
            f"The run in {path} has no held-out loss: train with --val-fraction above 0."
        )
    wrong = _wrong(parameters, tokens, loss)
    if wrong:
        raise CheckpointError(
            f"{path / 'summary.json'} is damaged: {wrong}. Train the run again, or leave it out."
        )
    return RunPoint(parameters, tokens, float(loss), str(path), _tokenizer_of(path))


def _wrong(parameters: Any, tokens: Any, loss: Any) -> str | None:
    """Return what no run can have, in words."""
    for name, value in (("parameters", parameters), ("tokens", tokens)):
        if not _is(numbers.Integral, value) or not 0 < value < 1 << 63:
            return f"{name} is {value!r:.60}, expected a whole number above 0"
    if not _is(numbers.Real, loss) or not 0 <= loss <= sys.float_info.max:
        return f"the loss is {loss!r:.60}, expected a finite number that is not negative"
    return None


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _tokenizer_of(path: Path) -> str | None:
    try:
        known = json.loads((path / "run.json").read_text(encoding="utf-8"))
        return str(known["facts"]["tokenizer"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a run of the Python interface may have been moved without it


def fit_runs(points: Sequence[RunPoint]) -> ScalingFit:
    """Fit the loss of finished runs to their sizes and lengths.

    Only the last loss of a run counts: on the way, its learning rate was not yet low. Where all
    runs have one size, the curve is in tokens alone, and the other way round.

    Parameters
    ----------
    points
        At least three runs that differ in parameters or tokens, of the same tokenizer.

    Raises
    ------
    ConfigError
        Fewer runs, runs that are all alike, or of different tokenizers.

    Examples
    --------
    >>> lengths = (10**5, 4 * 10**5, 10**6, 3 * 10**6)
    >>> runs = [RunPoint(10**6, tokens, 1.5 + 300 / tokens**0.5) for tokens in lengths]
    >>> found = fit_runs(runs).predict(10**6, 10**7)
    >>> found.low < 1.5 + 300 / 10**3.5 < found.high
    True
    """
    points = tuple(points)
    _check(points)
    losses = np.array([each.loss for each in points])
    varied = len({each.parameters for each in points}), len({each.tokens for each in points})

    def curves(exponents: Values) -> Curves:
        return nonnegative(exponents, _designs(points, exponents, points), losses)

    # A term that the runs do not vary in has no exponent to look for; two values fit any.
    values = [
        np.ones(1) if count == 1 else np.append(usual, _EXPONENTS) if count == 2 else _EXPONENTS
        for count, usual in zip(varied, _USUAL, strict=True)
    ]
    found = [curves(np.array(list(itertools.product(*values))))]
    usual = np.isin(varied, 2, invert=True) | (found[0].exponents == _USUAL)
    found.insert(0, _finer(found[0].take(usual.all(axis=1)).best(), curves, varied))
    best = found[0].best()
    for term in (0, 1):
        if varied[term] == 2:
            found.append(curves(_with_each(found[0].exponents, term, values[term])))
    fitted = 1 + sum(min(2, count - 1) for count in varied)
    different = len({(each.parameters, each.tokens) for each in points})
    free = len(points) - min(fitted, different)
    error = float(best.errors[0])
    noise = max(_SEED_NOISE, float(np.sqrt(error / free)) if free else 0.0)
    to_spare = max(0, different - fitted)
    student = _student(to_spare, free, noise)
    every = joined([best, *found])
    (base, size, data), (alpha, beta) = best.coefficients[0].tolist(), best.exponents[0].tolist()
    scale = _scales(points)
    return ScalingFit(
        base,
        size * scale[0] ** alpha,
        alpha,
        data * scale[1] ** beta,
        beta,
        noise,
        to_spare,
        tuple(name for (name, _), count in zip(_TERMS, varied, strict=True) if count == 2),
        points,
        every.take(every.errors <= error + (student * noise) ** 2),
        student,
    )


def _student(to_spare: int, free: int, noise: float) -> float:
    """Return how many spreads an interval reaches; free: runs more than their fit has numbers."""
    measured = noise > _SEED_NOISE and free > 0
    reach = 1.96 if not measured or free > len(_STUDENT) else _STUDENT[free - 1]
    # Where nothing is left over to judge the curve by, the noise of seeds is a guess.
    return reach if to_spare else max(reach, _STUDENT[2])


def _with_each(exponents: Values, term: int, values: Values) -> Values:
    """Return the pairs with every one of the values for one term's exponent."""
    pairs = np.unique(exponents, axis=0)
    every = np.repeat(pairs, len(values), axis=0)
    every[:, term] = np.tile(values, len(pairs))
    return every


def _finer(best: Curves, curves: Callable[[Values], Curves], varied: tuple[int, int]) -> Curves:
    """Return the curves on the way from the best of the coarse exponents to the best of all.

    They lie the closer the nearer to it, so that those which the runs do not rule out are among
    them, however few these are. Only the exponents of terms with three values or more move.
    """
    seen = [best]
    step = _FIRST_STEP
    moves = [(-1.0, 0.0, 1.0) if count > 2 else (0.0,) for count in varied]
    steps = np.array(list(itertools.product(*moves)))
    for _ in range(_MOVES):
        around = curves(np.maximum(_LEAST_EXPONENT, best.exponents + step * steps))
        seen.append(around)
        better = around.best()
        if better.errors[0] < best.errors[0] - _ALIKE:
            best = better
        elif step <= _LAST_STEP:
            break
        else:
            step /= 2
    return joined(seen)


def _check(points: tuple[RunPoint, ...]) -> None:
    for each in points:
        wrong = _wrong(each.parameters, each.tokens, each.loss)
        if wrong:
            raise ConfigError(f"The run {each.name or each!r} cannot be: {wrong}.")
    if len(points) < _FEWEST:
        raise ConfigError(
            f"{len(points)} runs are too few for a curve: give at least {_FEWEST} that differ in "
            "parameters or tokens."
        )
    if len({(each.parameters, each.tokens) for each in points}) < _FEWEST:
        raise ConfigError(
            "The runs are alike: a curve needs at least three that differ in parameters or tokens."
        )
    if len({each.tokenizer for each in points if each.tokenizer is not None}) > 1:
        raise ConfigError(
            "The runs have different tokenizers, so their losses by token cannot be compared: "
            "train them with one tokenizer (--tokenizer DIR)."
        )


def _scales(points: Sequence[RunPoint]) -> tuple[float, float]:
    """Typical sizes, so that the columns of the fit are of one order."""
    logs = np.log([[each.parameters, each.tokens] for each in points])
    return tuple(float(each) for each in np.exp(logs.mean(axis=0)))  # type: ignore[return-value]


def _designs(asked: Sequence[RunPoint], exponents: Values, points: Sequence[RunPoint]) -> Values:
    """Return for each pair of exponents the columns of E, A and B: [pairs, asked, 3].

    A column is zeros where the runs cannot tell its term from the constant.
    """
    values = np.array([[each.parameters, each.tokens] for each in asked], dtype=float)
    logs = np.log(values / _scales(points))
    varied = [len({p.parameters for p in points}) > 1, len({p.tokens for p in points}) > 1]
    columns = np.ones((len(exponents), len(asked), 3))
    columns[:, :, 1:] = np.exp(-exponents[:, None, :] * logs) * varied
    return columns


def _warnings(fit: ScalingFit) -> list[str]:
    said = []
    if not fit.to_spare:
        said.append(_NOT_JUDGED.format(runs=len({(p.parameters, p.tokens) for p in fit.points})))
    for (name, what), value in zip(_TERMS, _USUAL, strict=True):
        if name in fit.assumed:
            said.append(
                _ASSUMED.format(
                    what=what,
                    exponent=name,
                    value=value,
                    least=_EXPONENTS[0],
                    most=_EXPONENTS[-1],
                )
            )
    return said


def as_dict(fit: ScalingFit, forecast: Forecast) -> dict[str, Any]:
    """Return a fit and a forecast as plain values."""
    said = _warnings(fit)
    return {
        **({"warning": " ".join(said)} if said else {}),
        "loss": forecast.loss,
        "low": forecast.low,
        "high": forecast.high,
        "parameters": forecast.parameters,
        "tokens": forecast.tokens,
        "curve": {
            "E": fit.irreducible,
            "A": fit.size,
            "alpha": fit.alpha,
            "B": fit.data,
            "beta": fit.beta,
            "noise": fit.noise,
        },
        "runs": [
            {"run": p.name, "parameters": p.parameters, "tokens": p.tokens, "loss": p.loss}
            for p in fit.points
        ],
    }
