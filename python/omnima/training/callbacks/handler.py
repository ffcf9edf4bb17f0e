"""Calls callbacks in order. One that raises stops the run with an error that names it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from omnima.errors import CallbackError, CheckpointError, ConfigError
from omnima.training.callbacks.base import EVENTS, Callback, Control, RunState
from omnima.training.schema import unknown_key

# Names of transformers.TrainerCallback that never come here, and the module whose classes have them
# without meaning them.
_INSIDE_A_STEP = ("on_substep_end", "on_pre_optimizer_step", "on_optimizer_step")
_ELSEWHERE = ("on_init_end", "on_predict", "on_prediction_step", "on_push_begin")
_PEER = "transformers"


class CallbackHandler:
    """The callbacks of one run.

    Parameters
    ----------
    callbacks
        Objects with methods named in `EVENTS`.
    args
        What every event gets first: the run's `TrainConfig`.
    state
        Where the run stands; the loop keeps it up to date.
    facts
        Keyword arguments that every event gets.

    Raises
    ------
    ConfigError
        A class in place of an object, an object without any event, or a misspelt event.
    """

    def __init__(
        self, callbacks: Sequence[Any], args: Any, state: RunState, facts: dict[str, Any]
    ) -> None:
        self.args, self.state, self.control, self.facts = args, state, Control(), facts
        self._callbacks = named(callbacks)
        self._calls: dict[str, list[tuple[str, Callable[..., Any]]]] = {
            event: [
                (name, getattr(each, event))
                for name, each in self._callbacks.items()
                if _means(each, event)
            ]
            for event in EVENTS
        }

    def hears(self, event: str) -> bool:
        """Whether any callback wants this event."""
        return bool(self._calls[event])

    def fire(self, event: str, **facts: Any) -> None:
        """Call every callback that has this event.

        Raises
        ------
        CallbackError
            One of them raised; the message names it, the event, the step and its own line.
        """
        for name, call in self._calls[event]:
            try:
                returned = call(self.args, self.state, self.control, **self.facts, **facts)
                self.control.take_in(returned)
            except Exception as error:
                raise CallbackError(self._told(name, event, error)) from error

    def fire_last(self, event: str, note: Callable[[str], None], **facts: Any) -> None:
        """Call every callback, whatever one of them raises; failures are told, not raised."""
        for name, call in self._calls[event]:
            try:
                call(self.args, self.state, self.control, **self.facts, **facts)
            except Exception as error:
                note(self._told(name, event, error))

    def state_dict(self, note: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Return what callbacks want to find again when the run is resumed, by their names.

        One that fails is told through `note` and left out; without `note` it raises.
        """
        kept = {}
        for name, each in self._callbacks.items():
            if not hasattr(each, "state_dict"):
                continue
            try:
                kept[name] = json.loads(json.dumps(each.state_dict()))
            except Exception as error:
                told = self._told(name, "state_dict", error)
                if note is None:
                    raise CallbackError(told) from error
                note(told)
        return kept

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Give every callback back what it had kept; one that is new begins as it is."""
        for name, each in self._callbacks.items():
            if name in kept and hasattr(each, "load_state_dict"):
                try:
                    each.load_state_dict(kept[name])
                except Exception as error:
                    raise CheckpointError(
                        f"The callback {name} cannot take back its state from the checkpoint "
                        f"({type(error).__name__}: {error}). Resume with the callbacks the run was "
                        "started with, or without this one."
                    ) from error

    def _told(self, name: str, event: str, error: Exception) -> str:
        trace = traceback.extract_tb(error.__traceback__)
        place = f" ({trace[-1].filename}, line {trace[-1].lineno})" if trace else ""
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        step = self.state.global_step
        return f"The callback {name} failed in {event} at step {step}: {said}{place}."


def named(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Check callbacks and return them by their names, which are those of their classes.

    Raises
    ------
    ConfigError
        A class in place of an object, an object without any event, or a misspelt event.
    """
    found: dict[str, Any] = {}
    for each in callbacks:
        _check(each)
        plain = name = type(each).__name__
        count = 1
        while name in found:
            count += 1
            name = f"{plain} {count}"
        found[name] = each
    return found


def _check(callback: Any) -> None:
    if isinstance(callback, type):
        raise ConfigError(
            f"The callback {callback.__name__} is a class: give an object, "
            f"{callback.__name__}(…), so that it can hold what it needs."
        )
    kind = type(callback)
    known = {*EVENTS, *_INSIDE_A_STEP, *_ELSEWHERE}
    for name in _own_methods(kind):
        if name in _INSIDE_A_STEP:
            raise ConfigError(
                f"The callback {kind.__name__} has {name}, which never comes: a step is one call "
                "of the core, and no Python runs inside it. Use on_step_end."
            )
        if name not in known:
            raise unknown_key(name, EVENTS, f"the callback {kind.__name__}")
    if not any(callable(getattr(callback, event, None)) for event in EVENTS):
        raise ConfigError(
            f"The callback {kind.__name__} has no event: name its methods after events, such as "
            "on_step_end or on_evaluate."
        )


def _own_methods(kind: type) -> list[str]:
    """Return the on_… methods of a class that are not inherited from a base of callbacks."""
    return [
        name
        for part in kind.__mro__
        if part is not Callback and part.__module__.split(".")[0] != _PEER
        for name, value in vars(part).items()
        if name.startswith("on_") and callable(value)
    ]


def _means(callback: Any, event: str) -> bool:
    method = getattr(callback, event, None)
    return callable(method) and getattr(type(callback), event, None) is not getattr(Callback, event)
