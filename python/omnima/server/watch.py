"""Whether an engine that answers still writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omnima.server.jobs import Event

_FAILURES = 5  # steps in a row that may fail
_LOOKS = 20  # without a step's end, until an engine counts as stalled


class Watch:
    """Knows from an engine's events and figures when it writes no more, so that it is started anew.

    Parameters
    ----------
    seconds
        Which one step may last.

    Attributes
    ----------
    pause
        Seconds between two looks at the figures.
    """

    def __init__(self, seconds: float) -> None:
        self.pause = seconds / _LOOKS
        self._structured: set[int] = set()
        self.begin()

    def begin(self) -> None:
        """Another engine has begun."""
        self._structured.clear()
        self._failures, self._looks, self._busy = 0, 0, -1.0

    def submit(self, tag: int, structured: bool) -> None:
        """A text is submitted; where it cannot keep to its structure, nothing is wrong with the
        engine.
        """
        if structured:
            self._structured.add(tag)

    def forget(self, tag: int) -> None:
        """A text is not taken: no event of it comes."""
        self._structured.discard(tag)

    def fails(self, events: Sequence[Event]) -> bool:
        """Take the events of a step; True: this and those before it failed, with no token between.

        >>> watch = Watch(60)
        >>> error = (1, [], [], "error", 0, "no step goes well")
        >>> [watch.fails([error]) for _ in range(5)]
        [False, False, False, False, True]
        >>> watch.fails([error, (2, [7], [], "", 0, "")])
        False
        """
        well = wrong = False
        for tag, ids, _, reason, _, _ in events:
            well = well or bool(ids)
            wrong = wrong or (reason == "error" and tag not in self._structured)
            if reason:
                self._structured.discard(tag)
        self._failures = 0 if well else self._failures + wrong
        return self._failures >= _FAILURES

    def stalls(self, figures: Mapping[str, float] | None) -> bool:
        """Take the figures of a look, None where the engine gave none; True: for too long there
        were texts, and no step has ended.

        Looks are counted, and not the time: a machine that slept has not stalled.
        """
        if figures is None:
            self._looks += 1
        elif figures["running"] + figures["waiting"] == 0 or figures["busy_seconds"] != self._busy:
            self._looks, self._busy = 0, figures["busy_seconds"]
        else:
            self._looks += 1
        return self._looks >= _LOOKS
