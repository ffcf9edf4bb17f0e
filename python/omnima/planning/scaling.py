"""The loss of a larger run from a few small ones: L = E + A / N^a + B / D^b (Hoffmann and others,
*Training Compute-Optimal Large Language Models*, 2022, eq. 2), with an interval.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnima.errors import CheckpointError, ConfigError

_FEWEST = 3
_EXPONENTS = np.round(np.arange(0.05, 1.2001, 0.05), 4)
# Around the best of these the search goes on in ever smaller steps, down to the last.
_FIRST_STEP, _LAST_STEP = 0.025, 0.0005
_LEAST_EXPONENT = 0.01
_MOVES = 400
# Squared errors that differ by less are alike: losses are not known to a millionth.
_ALIKE = 1e-12
# Two runs that differ by the seed alone differ by about so much, in nats a token.
_SEED_NOISE = 0.005
# 97.5% points of Student's t by degrees of freedom; above the last: 1.96.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

_NOT_JUDGED = (
    "{runs} runs are as many as a curve can be laid through, so nothing tells whether it holds; "
    "the interval rests on the usual noise of seeds alone. Add shorter or smaller runs."
)


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
class _Curve:
    """One pair of exponents with its best coefficients [E, A, B] and squared error."""

    alpha: float
    beta: float
    coefficients: NDArray[np.float64]
    error: float


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
        Runs beyond as many as the curve has numbers: 0 where it goes through all of them, so that
        nothing tells whether it holds.
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
    points: tuple[RunPoint, ...]
    _curves: tuple[_Curve, ...]
    _student: float

    def predict(self, parameters: int, tokens: int) -> Forecast:
        """Return the loss of a run of so many parameters and tokens.

        The interval spans every curve that the runs do not rule out, each with the error of its
        coefficients and the spread of single runs.
        """
        lows, highs = [], []
        for curve in self._curves:
            row = _columns([parameters], [tokens], curve.alpha, curve.beta, self.points)[0]
            design = _columns(
                [each.parameters for each in self.points],
                [each.tokens for each in self.points],
                curve.alpha,
                curve.beta,
                self.points,
            )
            used = curve.coefficients > 0
            part = design[:, used]
            spread = row[used] @ np.linalg.pinv(part.T @ part) @ row[used]
            reach = self._student * self.noise * float(np.sqrt(1.0 + max(0.0, spread)))
            middle = float(row @ curve.coefficients)
            lows.append(middle - reach)
            highs.append(middle + reach)
        best = self._curves[0]
        row = _columns([parameters], [tokens], best.alpha, best.beta, self.points)[0]
        loss = float(row @ best.coefficients)
        return Forecast(parameters, tokens, loss, max(0.0, min(lows)), max(highs))


def read_run(directory: str | Path) -> RunPoint:
    """Read the end of a finished run.

    Raises
    ------
    CheckpointError
        The directory holds no finished run, or one without a held-out loss.
    """
    path = Path(directory)
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        loss = summary["val_loss"]
        point = (int(summary["parameters"]), int(summary["tokens"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds no finished run ({error}). Finish it with --resume, or leave it out."
        ) from error
    if loss is None:
        raise CheckpointError(
            f"The run in {path} has no held-out loss: train with --val-fraction above 0."
        )
    return RunPoint(*point, float(loss), str(path), _tokenizer_of(path))


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
    parameters = [each.parameters for each in points]
    tokens = [each.tokens for each in points]
    losses = np.array([each.loss for each in points])
    # A term that the runs do not vary in has no exponent to look for.
    alphas = _EXPONENTS if len(set(parameters)) > 1 else np.ones(1)
    betas = _EXPONENTS if len(set(tokens)) > 1 else np.ones(1)

    def curve(alpha: float, beta: float) -> _Curve:
        design = _columns(parameters, tokens, alpha, beta, points)
        return _Curve(alpha, beta, *_nonnegative(design, losses))

    curves = [curve(float(a), float(b)) for a, b in itertools.product(alphas, betas)]
    curves += _finer(min(curves, key=_error), curve, len(alphas) > 1, len(betas) > 1)
    curves.sort(key=_error)
    free = len(points) - 1 - 2 * (len(alphas) > 1) - 2 * (len(betas) > 1)
    best = curves[0]
    noise = max(_SEED_NOISE, float(np.sqrt(best.error / free)) if free > 0 else 0.0)
    student = _student(free, noise)
    kept = [each for each in curves if each.error <= best.error + (student * noise) ** 2]
    base, size, data = (float(each) for each in best.coefficients)
    scale = _scales(points)
    return ScalingFit(
        base,
        size * scale[0] ** best.alpha,
        best.alpha,
        data * scale[1] ** best.beta,
        best.beta,
        noise,
        max(0, free),
        points,
        tuple(kept),
        student,
    )


def _student(free: int, noise: float) -> float:
    """Return how many spreads an interval reaches, for so many runs more than numbers fitted."""
    if free <= 0:  # nothing is left over to judge the fit by: the noise of seeds is a guess
        return _STUDENT[2]
    return 1.96 if noise == _SEED_NOISE or free > len(_STUDENT) else _STUDENT[free - 1]


def _error(curve: _Curve) -> float:
    return curve.error


def _finer(
    best: _Curve, curve: Callable[[float, float], _Curve], by_size: bool, by_length: bool
) -> list[_Curve]:
    """Return the curves on the way from the best of the coarse exponents to the best of all.

    They lie the closer the nearer to it, so that those which the runs do not rule out are among
    them, however few these are.
    """
    seen: list[_Curve] = []
    step = _FIRST_STEP
    for _ in range(_MOVES):
        moves = (-step, 0.0, step)
        around = [
            curve(max(_LEAST_EXPONENT, best.alpha + a), max(_LEAST_EXPONENT, best.beta + b))
            for a in (moves if by_size else (0.0,))
            for b in (moves if by_length else (0.0,))
        ]
        seen += around
        better = min(around, key=_error)
        if better.error < best.error - _ALIKE:
            best = better
        elif step <= _LAST_STEP:
            break
        else:
            step /= 2
    return seen


def _check(points: tuple[RunPoint, ...]) -> None:
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


def _columns(
    parameters: Sequence[int],
    tokens: Sequence[int],
    alpha: float,
    beta: float,
    points: Sequence[RunPoint],
) -> NDArray[np.float64]:
    """Columns of E, A and B; zeros where the runs cannot tell a term from the constant."""
    typical = _scales(points)
    count = np.asarray(parameters, dtype=float) / typical[0]
    seen = np.asarray(tokens, dtype=float) / typical[1]
    varied = len({p.parameters for p in points}) > 1, len({p.tokens for p in points}) > 1
    columns = np.ones((len(count), 3))
    columns[:, 1] = count**-alpha * varied[0]
    columns[:, 2] = seen**-beta * varied[1]
    return columns


def _nonnegative(
    design: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Least squares with coefficients that are not negative: the best of the few subsets."""
    best: tuple[NDArray[np.float64], float] | None = None
    columns = [column for column in range(design.shape[1]) if design[:, column].any()]
    for count in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, count):
            part = design[:, chosen]
            found = np.linalg.lstsq(part, target, rcond=None)[0]
            if (found < 0).any():
                continue
            error = float(np.square(part @ found - target).sum())
            if best is None or error < best[1]:
                coefficients = np.zeros(design.shape[1])
                coefficients[list(chosen)] = found
                best = coefficients, error
    assert best is not None  # the mean alone is never negative: losses are not
    return best


def as_dict(fit: ScalingFit, forecast: Forecast) -> dict[str, Any]:
    """Return a fit and a forecast as plain values."""
    return {
        **({} if fit.to_spare else {"warning": _NOT_JUDGED.format(runs=len(fit.points))}),
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
