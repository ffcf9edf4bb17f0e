"""Says when a loss jumps, climbs or stands still, from the losses alone."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from typing import Any

_WINDOW = 100  # losses that say what is usual
_WARM = 20  # losses before anything is said
_SPREADS = 8.0  # of the usual losses, above their median
_SHARE = 0.1  # and at least this part of the median: no jump worth a word is smaller
_REST = 50  # steps between two spikes that are told
_FADE = 0.95  # of the running mean
_CLIMB = 0.2  # of the best running mean
_LEAST_CLIMB = 0.5  # nats
_BETTER = 0.002  # part by which a loss must fall to count as better
_EVALUATIONS = 4  # without a better one
_STEPS = 1000  # likewise, where nothing is held out


@dataclasses.dataclass(frozen=True)
class Alert:
    """Something about a run that its owner wants to know.

    Attributes
    ----------
    kind
        spike, divergence, plateau or stall.
    step
        Updates done when it was seen.
    message
        One sentence, and what to try.
    values
        The numbers behind it.
    """

    kind: str
    step: int
    message: str
    values: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Return the alert as a dict."""
        return dataclasses.asdict(self)


class LossAlerts:
    """Watches the losses of a run.

    Parameters
    ----------
    kinds
        Which of spike, divergence and plateau to tell.

    >>> alerts = LossAlerts(("spike",))
    >>> [alert for step in range(50) for alert in alerts.step(step, 3.0)]
    []
    >>> alerts.step(50, 9.0)[0].kind
    'spike'
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._recent: collections.deque[float] = collections.deque(maxlen=_WINDOW)
        self._count = 0
        self._sum = 0.0  # of fading weights
        self._lowest = float("inf")  # running mean
        self._spiked = -_REST
        self._climbing = False
        self._best: float | None = None  # loss that plateaus are measured from
        self._best_at = 0  # evaluation or step
        self._evaluations = 0
        self._flat = False

    def step(self, step: int, loss: float) -> list[Alert]:
        """Take the training loss of a step; return what it shows."""
        found = [self._spike(step, loss), self._divergence(step, loss)]
        if self._evaluations == 0 and self._count > _WARM:
            found.append(self._plateau(step, self._mean(), step, _STEPS, "steps", "training loss"))
        return [each for each in found if each is not None]

    def evaluation(self, step: int, loss: float) -> list[Alert]:
        """Take a held-out loss; return what it shows."""
        if self._evaluations == 0:
            self._best = None  # from here on the held-out loss says whether it gets better
        self._evaluations += 1
        found = self._plateau(
            step, loss, self._evaluations, _EVALUATIONS, "evaluations", "held-out loss"
        )
        return [found] if found is not None else []

    def _mean(self) -> float:
        return self._sum / (1 - _FADE**self._count)

    def _spike(self, step: int, loss: float) -> Alert | None:
        recent = self._recent
        usual = self._mean() if self._count else loss
        found = None
        # The mean is at hand; the median is sought only for a loss that stands out from it.
        stands_out = loss - usual > _SHARE / 2 * abs(usual)
        if len(recent) >= _WARM and stands_out and step - self._spiked >= _REST:
            middle = statistics.median(recent)
            spread = 1.4826 * statistics.median(abs(each - middle) for each in recent)
            limit = middle + max(_SPREADS * spread, _SHARE * abs(middle))
            if loss > limit and "spike" in self._kinds:
                self._spiked = step
                found = Alert(
                    "spike",
                    step,
                    f"The loss jumped to {loss:.3f} at step {step}; about {middle:.3f} is usual. "
                    "If it stays up: a lower lr, a longer warmup or a smaller clip_norm.",
                    {"loss": loss, "median": middle, "limit": limit},
                )
        recent.append(loss)
        return found

    def _divergence(self, step: int, loss: float) -> Alert | None:
        self._count += 1
        self._sum = _FADE * self._sum + (1 - _FADE) * loss
        if self._count < _WARM:
            return None
        mean = self._mean()
        self._lowest = min(self._lowest, mean)
        climb = max(_CLIMB * abs(self._lowest), _LEAST_CLIMB)
        if self._climbing:
            self._climbing = mean > self._lowest + climb / 2
            return None
        if mean <= self._lowest + climb or "divergence" not in self._kinds:
            return None
        self._climbing = True
        return Alert(
            "divergence",
            step,
            f"The loss climbs: its running mean is {mean:.3f} at step {step} and was "
            f"{self._lowest:.3f}. Try a lower lr, from the last good checkpoint.",
            {"mean": mean, "lowest": self._lowest},
        )

    def _plateau(
        self, step: int, loss: float, at: int, patience: int, unit: str, what: str
    ) -> Alert | None:
        if self._best is None or loss < self._best - _BETTER * abs(self._best):
            self._best, self._best_at, self._flat = loss, at, False
            return None
        if self._flat or at - self._best_at < patience or "plateau" not in self._kinds:
            return None
        self._flat = True
        return Alert(
            "plateau",
            step,
            f"The {what} has not fallen by {_BETTER:.1%} for {at - self._best_at} {unit}: "
            f"{self._best:.4f} is the best, {loss:.4f} now (step {step}). More of the same will "
            "hardly help: more text, a larger model, or the end of this run.",
            {"best": self._best, "now": loss},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what travels in a checkpoint."""
        kept = {name: value for name, value in vars(self).items() if name != "_kinds"}
        # JSON knows no infinity: nothing was lowest yet.
        lowest = None if self._lowest == float("inf") else self._lowest
        return {**kept, "_recent": list(self._recent), "_lowest": lowest}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in vars(self):
            if name in kept and name != "_kinds":
                setattr(self, name, kept[name])
        self._recent = collections.deque(kept["_recent"], maxlen=_WINDOW)
        self._lowest = float("inf") if kept["_lowest"] is None else kept["_lowest"]
