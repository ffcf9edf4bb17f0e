"""A run in curves: loss, learning rate and speed over the steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnima.notebook.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BELOW = {"lr": "learning rate", "tokens_per_s": "tokens a second"}


def plot_history(
    history: Sequence[Mapping[str, Any]], floor: float | None, path: str | Path | None = None
) -> Figure:
    """Draw training and held-out loss over the steps, and the floor that no model can beat; below
    them the learning rate and the speed, where the history has them.

    Raises
    ------
    OmnimaError
        matplotlib is not installed; the message holds the command that installs it.
    """
    below = [name for name in _BELOW if any(each.get(name) is not None for each in history)]
    figure = new_figure(8, 4.5 + 1.25 * bool(below))
    if below:
        parts: Any = figure.subfigures(2, 1, height_ratios=(3, 1))
        above, rest = parts
        _draw_losses(above.subplots(), history, floor)
        for axes, name in zip(rest.subplots(1, len(below), squeeze=False)[0], below):
            axes.plot(*_points(history, name), color="tab:green" if name == "lr" else "tab:purple")
            axes.set(xlabel="step", title=_BELOW[name])
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    else:
        _draw_losses(figure.subplots(), history, floor)
    if path is not None:
        figure.savefig(str(path), dpi=120)
    return figure


def _draw_losses(axes: Axes, history: Sequence[Mapping[str, Any]], floor: float | None) -> None:
    steps, losses = _points(history, "loss")
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    fading = max(0.0, min(0.95, 1 - 10 / max(1, len(losses))))  # of few points the nearest alone
    axes.plot(steps, smooth(losses, fading), color="tab:blue", label="training loss")
    held_out = _points(history, "val_loss")
    if held_out[0]:
        axes.plot(*held_out, "o-", color="tab:orange", label="held-out loss")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle="--", label=f"entropy floor {floor:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()


def _points(history: Iterable[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(each["step"], each[name]) for each in history if each.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def history_arrays(history: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the numbers of a history as arrays of one length: ``step`` int64, the others float64
    with NaN where a record lacks them.

    >>> history_arrays([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "val_loss": 1.6}])
    {'step': array([1, 2]), 'loss': array([2. , 1.5]), 'val_loss': array([nan, 1.6])}
    """
    names = dict.fromkeys(
        name
        for record in history
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    )

    def column(name: str) -> NDArray[Any]:
        if name == "step":
            return np.array([each["step"] for each in history], np.int64)
        values = [each.get(name) for each in history]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    return {name: column(name) for name in names}


def smooth(values: Sequence[float], weight: float = 0.95) -> list[float]:
    """Return the running mean with exponentially fading weights, unbiased at the start.

    >>> smooth([1.0, 1.0])
    [1.0, 1.0]
    """
    smoothed = []
    mean = 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        smoothed.append(round(mean / (1 - weight**count), 12))
    return smoothed
