"""The loss of a run as a drawing (SVG) in the colours of the page, with its words beside it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from omnima.notebook.curves import smooth

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 26, 14, 40
_POINTS = 400  # of a line: more are not seen
_AHEAD = 4  # times the steps that are done are drawn at most: the beginning of a long run is seen


def curve_svg(history: Sequence[Mapping[str, Any]], of: int = 0) -> str:
    """Return training and held-out loss over the steps as SVG.

    Parameters
    ----------
    history
        A dict a step: step, loss, and val_loss where it was measured.
    of
        Steps of the whole run; 0: as many as there are. Where most are still to come, there is
        room for some of them.
    """
    losses = [each["loss"] for each in history if math.isfinite(each["loss"])]
    if not losses:
        return '<p class="empty">The loss is drawn here while a model trains.</p>'
    held_out = [(each["step"], each["val_loss"]) for each in history if "val_loss" in each]
    values = [*losses, *(loss for _, loss in held_out if math.isfinite(loss))]
    last = history[-1]["step"]
    frame = _Frame(max(last, min(of, _AHEAD * last)), min(values), max(values))
    steps = [each["step"] for each in history if math.isfinite(each["loss"])]
    fading = max(0.0, min(0.9, 1 - 10 / len(losses)))
    parts = [
        frame.grid(),
        frame.line(steps, losses, "raw"),
        frame.line(steps, smooth(losses, fading), "training"),
        frame.line([step for step, _ in held_out], [loss for _, loss in held_out], "held-out"),
        *(frame.dot(step, loss) for step, loss in held_out if math.isfinite(loss)),
    ]
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(curve_words(history), quote=True)}">{"".join(parts)}</svg>'
        '<p class="legend" aria-hidden="true"><span class="key training"></span>training '
        '<span class="key held-out"></span>held out <span class="hint">(loss in nats a token, over '
        "the steps)</span></p>"
    )


def curve_words(history: Sequence[Mapping[str, Any]]) -> str:
    """Say what the drawing shows.

    >>> curve_words([{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.5, "val_loss": 3.0}])
    'Loss from 4.000 at step 1 to 2.500 at step 2; held out 3.000, 3.000 at best.'
    """
    first, last = history[0], history[-1]
    said = (
        f"Loss from {first['loss']:.3f} at step {first['step']} to {last['loss']:.3f} at step "
        f"{last['step']}"
    )
    held_out = [each["val_loss"] for each in history if "val_loss" in each]
    if held_out:
        said += f"; held out {held_out[-1]:.3f}, {min(held_out):.3f} at best"
    return said + "."


class _Frame:
    """Turns steps and losses into places."""

    def __init__(self, steps: int, low: float, high: float) -> None:
        spread = (high - low) or 1.0
        self._steps = max(1, steps)
        self._low, self._high = max(0.0, low - 0.05 * spread), high + 0.05 * spread

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self._steps

    def y(self, loss: float) -> float:
        share = (self._high - loss) / (self._high - self._low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * share

    def grid(self) -> str:
        found = []
        for loss in ticks(self._low, self._high):
            y = self.y(loss)
            found.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.6g}</text>'
            )
        for step in ticks(0, self._steps):
            found.append(
                f'<text x="{self.x(step):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">'
                f"{step:.6g}</text>"
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        found.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">step</text>')
        return "".join(found)

    def line(self, steps: Sequence[float], losses: Sequence[float], kind: str) -> str:
        every = max(1, len(steps) // _POINTS)
        places = [
            f"{self.x(step):.1f},{self.y(loss):.1f}"
            for number, (step, loss) in enumerate(zip(steps, losses))
            if (number % every == 0 or number == len(steps) - 1) and math.isfinite(loss)
        ]
        return f'<polyline class="{kind}" points="{" ".join(places)}"/>' if places else ""

    def dot(self, step: float, loss: float) -> str:
        return f'<circle class="held-out" cx="{self.x(step):.1f}" cy="{self.y(loss):.1f}" r="3.5"/>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two, a few of them.

    >>> ticks(0, 100), ticks(2.1, 4.3)
    ([0, 20, 40, 60, 80, 100], [2.5, 3.0, 3.5, 4.0])
    """
    spread = (high - low) or 1.0
    step = 10.0 ** math.floor(math.log10(spread / most))
    step = next(step * each for each in (1, 2, 5, 10) if spread / (step * each) <= most)
    found = [number * step for number in range(math.ceil(low / step), int(high / step) + 1)]
    return [int(each) if step >= 1 else round(each, 10) for each in found]
