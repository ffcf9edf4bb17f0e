"""The face of a callback: its events, what it is told, and what it may ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError

# In the order of a run. Those of transformers.TrainerCallback that are missing (on_substep_end,
# on_optimizer_step, …) lie inside a step, which is one call of the core: no Python runs there.
EVENTS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_step_end",
    "on_evaluate",
    "on_log",
    "on_sample",
    "on_alert",
    "on_save",
    "on_epoch_end",
    "on_train_end",
    "on_exception",
)


@dataclasses.dataclass
class Control:
    """What a callback may ask of the loop; a request is granted once, at the end of the step.

    Attributes
    ----------
    should_stop
        End the run after this step as if the budget were spent: save, measure, write the model.
    should_evaluate, should_log, should_save
        Measure the held-out text, write a line into metrics.jsonl, write a checkpoint.
    """

    should_stop: bool = False
    should_evaluate: bool = False
    should_log: bool = False
    should_save: bool = False

    @property
    def should_training_stop(self) -> bool:
        """The name that transformers has for `should_stop`."""
        return self.should_stop

    @should_training_stop.setter
    def should_training_stop(self, value: bool) -> None:
        self.should_stop = value

    @property
    def should_epoch_stop(self) -> bool:
        """Never: the passes over a text are not cut short."""
        return False

    @should_epoch_stop.setter
    def should_epoch_stop(self, value: bool) -> None:
        if value:
            raise ConfigError(
                "should_epoch_stop is not granted here: a pass over the text is not cut short. Set "
                "should_training_stop to end the run."
            )

    def take_in(self, returned: Any) -> None:
        """Take over what a callback asks for by returning a control of its own, as some do."""
        if returned is None or returned is self:
            return
        self.should_epoch_stop = bool(getattr(returned, "should_epoch_stop", False))
        for name in ("should_training_stop", "should_evaluate", "should_log", "should_save"):
            if getattr(returned, name, False):
                setattr(self, name, True)

    def granted(self) -> None:
        """Forget the requests of this step; `should_stop` stays."""
        self.should_evaluate = self.should_log = self.should_save = False


@dataclasses.dataclass
class RunState:
    """Where a run stands, as a callback sees it; names are those of transformers where it has them.

    Attributes
    ----------
    global_step
        Updates done.
    max_steps
        Updates in the whole run; an estimate for a budget on the clock, 0 until it is known.
    epoch
        Passes over the training text so far, with its fraction.
    tokens, seconds
        Target tokens learned from, and the time the run has taken without preparation.
    loss, val_loss
        Of the last step, and of the last evaluation.
    log_history
        What metrics.jsonl holds so far, one dict a line.
    run_dir
        The run's directory.
    """

    run_dir: Path
    global_step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    val_loss: float | None = None
    log_history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    is_world_process_zero: bool = True
    is_local_process_zero: bool = True


class Callback:
    """Base of callbacks; override the events you want. Each gets `(args, state, control, **facts)`.

    `args` is the run's `TrainConfig`, `state` a `RunState`, `control` a `Control`. Among the facts
    are always `model` and `tokenizer` (also as `processing_class`); an event adds its own. An
    object that is not a `Callback` but has such methods, for example a
    `transformers.TrainerCallback`, does as well.

    A callback with a memory may have `state_dict()`, whose JSON values travel in every checkpoint,
    and `load_state_dict(values)`, which gets them back when the run is resumed.

    >>> class Say(Callback):
    ...     def on_step_end(self, args, state, control, **facts):
    ...         control.should_stop = state.loss < 1.0
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Before the first step; after a resumed run has been restored."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Before the step that begins a pass over the training text."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """Before a step; `state.global_step` counts those that are done."""

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After the weights have moved, before evaluating, logging and saving."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After an evaluation; `metrics` holds `eval_loss` and `eval_perplexity`."""

    def on_log(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After a line of metrics.jsonl was written; `logs` is that record."""

    def on_sample(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After the model wrote samples on the way; `samples` are texts, `path` their file."""

    def on_alert(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After an alert went to the console; `alert` has kind, step, message and values."""

    def on_save(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After a checkpoint was written; `checkpoint` is its directory."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After the step that ends a pass over the training text."""

    def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """After everything is on disk; `summary` is the run's result."""

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        """When the run ends early; `exception` says by what, an interrupt included."""
