"""How long a run trains: steps, epochs or minutes, brought to one number of steps and a fraction
done.
"""

from __future__ import annotations

import dataclasses
import math
import statistics

from omnima.training.config import TrainConfig

FIRST_LOOK = 6  # steps after which the speed is known well enough to plan the schedule
_AT_FIRST = 1_000_000  # stands for "unknown yet": warmup is the same for any long run
_LONGEST_WARMUP = 200
_WARMUP_SHARE = 20


@dataclasses.dataclass
class Budget:
    """The plan of a run.

    A budget in steps or epochs is exact from the start. A budget in minutes is planned from the
    measured time of the first steps and planned anew as the run goes on; it ends on the clock, with
    the schedule at its end.

    Parameters
    ----------
    total_steps
        The planned number of steps.
    seconds
        The limit on the clock; None when steps are the budget.
    """

    total_steps: int
    seconds: float | None = None
    planned_at: int = 0
    step_seconds: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: float) -> Budget:
        """Plan for a config; `steps_per_epoch` turns epochs into steps."""
        if config.steps is not None:
            return cls(config.steps)
        if config.epochs is not None:
            return cls(max(1, math.ceil(config.epochs * steps_per_epoch)))
        assert config.minutes is not None
        return cls(_AT_FIRST, config.minutes * 60)

    def warmup(self, config: TrainConfig) -> int:
        """Return the warmup steps of the current plan."""
        if config.schedule == "one_cycle":
            return 0  # it rises by itself
        if config.warmup is not None:
            return min(config.warmup, self.total_steps)
        return min(_LONGEST_WARMUP, self.total_steps // _WARMUP_SHARE)

    def done(self, step: int, elapsed: float) -> bool:
        """Whether the run is over."""
        return step >= self.total_steps or (self.seconds is not None and elapsed >= self.seconds)

    def fraction(self, step: int, elapsed: float) -> float:
        """Return how much of the run is done, 0 to 1."""
        by_steps = step / self.total_steps
        by_clock = elapsed / self.seconds if self.seconds is not None else 0.0
        return min(1.0, max(by_steps, by_clock))

    def left(self, step: int, elapsed: float) -> float | None:
        """Return the seconds left, or None while unknown."""
        if self.seconds is not None:
            return max(0.0, self.seconds - elapsed)
        if step == 0:
            return None
        return elapsed / step * (self.total_steps - step)

    def replan(self, step: int, elapsed: float, seconds: float) -> bool:
        """Take in the duration of one step; True when the run has been planned for the first
        time.
        """
        if self.seconds is None:
            return False
        self.step_seconds.append(seconds)
        first = self.planned_at == 0 and len(self.step_seconds) >= FIRST_LOOK
        again = self.planned_at > 0 and elapsed >= self._next_look(elapsed)
        if not (first or again):
            return False
        # The median of what was seen lately: evaluations and saves come on top as the mean elapsed.
        pace = statistics.median(self.step_seconds[-200:])
        if again and step > 0:
            pace = max(pace, 0.5 * (pace + elapsed / step))
        planned = step + max(1, math.floor((self.seconds - elapsed) / max(pace, 1e-6)))
        self._looked_at = elapsed
        self.planned_at = step
        self.total_steps = planned
        return first

    _looked_at: float = 0.0

    def _next_look(self, elapsed: float) -> float:
        assert self.seconds is not None
        return self._looked_at + self.seconds / 20
