"""Callbacks: which events come and when, what they may ask for, and what one that raises does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import CallbackError, CheckpointError, ConfigError, NonFiniteError
from omnima.training.callbacks import EVENTS, Callback, Control
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.run import Run

Make = Callable[..., Recipe]


def quiet(wanted: Recipe, *callbacks: Any, **how: Any) -> Run:
    return train(wanted, display=Display(silent=True), callbacks=callbacks, **how)


class Heard(Callback):
    """Writes down every event with its step."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.facts: dict[str, dict[str, Any]] = {}


def _listener(event: str) -> Callable[..., None]:
    def hear(self: Heard, args: Any, state: Any, control: Any, **facts: Any) -> None:
        self.events.append((event, state.global_step))
        self.facts[event] = facts

    return hear


for _event in EVENTS:
    setattr(Heard, _event, _listener(_event))


def bytes_of(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_events_come_in_order(small: Make) -> None:
    heard = Heard()
    run = quiet(small(log_every=4, save_every=4), heard)
    by_step = {
        step: [event for event, at in heard.events if at == step]
        for step in range(run_steps(run) + 1)
    }
    assert by_step[0] == ["on_train_begin", "on_epoch_begin", "on_step_begin"]
    assert by_step[1] == ["on_step_end", "on_step_begin"]
    assert by_step[4] == ["on_step_end", "on_evaluate", "on_log", "on_save", "on_step_begin"]
    assert by_step[8] == ["on_step_end", "on_evaluate", "on_log", "on_save", "on_train_end"]
    assert heard.facts["on_evaluate"]["metrics"]["eval_loss"] > 0
    assert heard.facts["on_log"]["logs"] == run.history[-1]
    assert heard.facts["on_train_end"]["summary"] == run.summary
    assert Path(heard.facts["on_save"]["checkpoint"]).name == "step-00000008"
    assert heard.facts["on_step_end"]["tokenizer"] is heard.facts["on_step_end"]["processing_class"]


def run_steps(run: Run) -> int:
    return int(run.summary["steps"])


def test_epochs_are_told(small: Make) -> None:
    heard = Heard()
    run = quiet(small(steps=None, epochs=2, batch_size=32, eval_every=0), heard)
    names = [event for event, _ in heard.events if "epoch" in event]
    assert names == ["on_epoch_begin", "on_epoch_end"] * 2
    assert run_steps(run) > 2


def test_a_run_with_callbacks_ends_with_the_same_bytes(small: Make, tmp_path: Path) -> None:
    plain = quiet(small(out=str(tmp_path / "plain")))
    watched = quiet(small(out=str(tmp_path / "watched")), Heard(), Asks(save={3}, evaluate={2}))
    assert bytes_of(plain.path) == bytes_of(watched.path)


class Asks(Callback):
    def __init__(self, stop: int = 0, **wanted: set[int]) -> None:
        self.stop, self.wanted = stop, wanted

    def on_step_end(self, args: Any, state: Any, control: Control, **facts: Any) -> None:
        control.should_stop = state.global_step == self.stop
        for name, steps in self.wanted.items():
            setattr(control, f"should_{name}", state.global_step in steps)


def test_requests_are_granted_once(small: Make) -> None:
    heard = Heard()
    wanted = small(log_every=8, eval_every=8, save_every=8)
    quiet(wanted, heard, Asks(evaluate={2}, save={3}, log={5}))
    steps = {
        event: [at for name, at in heard.events if name == event]
        for event in ("on_evaluate", "on_save", "on_log")
    }
    assert steps == {"on_evaluate": [2, 8], "on_save": [3, 8], "on_log": [2, 5, 8]}


def test_a_callback_ends_the_run(small: Make) -> None:
    run = quiet(small(), Asks(stop=3))
    assert run_steps(run) == 3 and (run.path / "model.safetensors").exists()
    found = latest_checkpoint(run.path)
    assert found is not None and found.step == 3


@pytest.mark.parametrize("event", ["on_step_end", "on_log", "on_evaluate", "on_save"])
def test_one_that_raises_is_named_and_nothing_is_lost(
    small: Make, tmp_path: Path, event: str
) -> None:
    class Breaks(Callback):
        pass

    def fail(self: Any, args: Any, state: Any, control: Any, **facts: Any) -> None:
        if state.global_step == 4:
            raise KeyError("colour")

    setattr(Breaks, event, fail)
    wanted, heard = small(save_every=4), Heard()
    with pytest.raises(CallbackError) as caught:
        quiet(wanted, heard, Breaks())
    said = str(caught.value)
    assert f"The callback Breaks failed in {event} at step 4: KeyError: 'colour'" in said
    assert "test_callbacks.py, line" in said and "saved at step 4" in said and "--resume" in said
    assert heard.events[-1] == ("on_exception", 4)
    assert isinstance(caught.value.__cause__, KeyError)
    resumed = quiet(wanted, resume=True)
    straight = quiet(small(out=str(tmp_path / "straight")))
    assert bytes_of(resumed.path) == bytes_of(straight.path)
    assert [each["step"] for each in resumed.history][-4:] == [5, 6, 7, 8]


class BreaksAt(Callback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        raise RuntimeError

    def on_exception(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        raise ValueError("again")


def test_one_that_raises_before_the_first_step(small: Make, capsys: Any) -> None:
    with pytest.raises(CallbackError, match="in on_train_begin at step 0: RuntimeError .*No step"):
        train(small(), callbacks=[BreaksAt()])
    assert "BreaksAt failed in on_exception at step 0: ValueError: again" in capsys.readouterr().err


def test_one_that_raises_at_the_end_leaves_a_finished_run(small: Make) -> None:
    class Ends(Callback):
        def on_train_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            raise OSError("no network")

    with pytest.raises(CallbackError, match="no network.* The run itself is finished"):
        quiet(small(), Ends())
    assert run_steps(quiet(small(), resume=True)) == 8


class Counts(Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        self.steps = kept["steps"]


def test_what_a_callback_keeps_travels_with_the_checkpoint(small: Make) -> None:
    quiet(small(), Counts(), Counts(), stop_after=5)
    one, two = Counts(), Counts()
    quiet(small(), one, two, resume=True)
    assert one.steps == two.steps == 8


def test_a_state_that_is_not_json_is_named(small: Make) -> None:
    class Odd(Counts):
        def state_dict(self) -> dict[str, Any]:
            return {"steps": {1, 2}}

    with pytest.raises(CallbackError, match="Odd failed in state_dict.*saved at step"):
        quiet(small(), Odd())
    assert latest_checkpoint(small().train.out or "") is not None


def test_a_state_that_does_not_fit_is_named(small: Make) -> None:
    quiet(small(), Counts(), stop_after=5)
    found = latest_checkpoint(small().train.out or "")
    assert found is not None
    assert json.loads((found.path / "state.json").read_text())["observers"]["callbacks"] == {
        "Counts": {"steps": 5}
    }

    class Changed(Counts):
        def load_state_dict(self, kept: dict[str, Any]) -> None:
            self.steps = kept["count"]

    Changed.__name__ = "Counts"
    with pytest.raises(CheckpointError, match="callback Counts cannot take back its state"):
        quiet(small(), Changed(), resume=True)


def test_an_interrupt_is_told(small: Make) -> None:
    heard = Heard()

    class Stops(Callback):
        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(small(), heard, Stops())
    assert isinstance(heard.facts["on_exception"]["exception"], KeyboardInterrupt)


def test_a_loss_that_is_not_finite_is_told(small: Make) -> None:
    heard = Heard()
    with pytest.raises(NonFiniteError):
        quiet(small(lr=10.0, clip_norm=0.0, steps=300, warmup=0, eval_every=300), heard, Poison())
    assert isinstance(heard.facts["on_exception"]["exception"], NonFiniteError)


class Poison(Callback):
    """Makes a weight not a number, as a broken machine would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
        import torch

        with torch.no_grad():
            facts["model"].core.named_parameters()[0][1].fill_(float("nan"))


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (Counts, r"Counts is a class: give an object, Counts\(…\)"),
        (object(), "object has no event"),
        (type("Typo", (Callback,), {"on_stepend": lambda self: None})(), '"on_step_end"'),
        (type("Inside", (), {"on_optimizer_step": lambda self: None})(), "one call of the core"),
    ],
)
def test_a_wrong_callback_is_refused_before_anything_is_read(
    small: Make, callback: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        quiet(small(data=["/nowhere"]), callback)


def test_a_callback_of_transformers_works(small: Make) -> None:
    transformers = pytest.importorskip("transformers")

    class Theirs(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            assert state.is_world_process_zero and state.max_steps == 8
            control.should_training_stop = state.global_step >= 5
            return control

    assert run_steps(quiet(small(), Theirs())) == 5


def test_printing_and_progress_of_transformers_work(
    small: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    assert transformers.PrinterCallback is PrinterCallback
    quiet(small(log_every=4), PrinterCallback())
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "loss" in line] == printed and len(printed) >= 2
    run = quiet(small(log_every=4), ProgressCallback(), overwrite=True)
    shown = capsys.readouterr()
    assert run_steps(run) == 8 and "8/8" in shown.err and "loss" in shown.out + shown.err


def test_the_other_name_of_stopping() -> None:
    control = Control()
    control.should_training_stop = True
    assert control.should_stop and control.should_training_stop


def test_a_control_that_a_callback_returns_counts(small: Make) -> None:
    transformers = pytest.importorskip("transformers")

    class Returns:
        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> Any:
            asked = transformers.TrainerControl()
            asked.should_training_stop = state.global_step >= 3
            asked.should_save = state.global_step == 2
            return asked

    heard = Heard()
    assert run_steps(quiet(small(), Returns(), heard)) == 3
    assert [step for event, step in heard.events if event == "on_save"] == [2, 3]


def test_what_cannot_be_granted_is_said(small: Make) -> None:
    class Skips:
        def on_step_end(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            control.should_epoch_stop = state.global_step >= 2

    with pytest.raises(CallbackError, match=r"Skips failed .* at step 2.*should_training_stop"):
        quiet(small(), Skips())
    assert Control().should_epoch_stop is False


def test_callbacks_know_the_end_from_the_beginning_and_may_change_their_logs(small: Make) -> None:
    class Greedy:
        planned = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **facts: Any) -> None:
            self.planned = state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **facts: Any) -> None:
            logs.clear()

    greedy = Greedy()
    run = quiet(small(), greedy)
    assert greedy.planned == 8
    assert all(record["loss"] > 0 for record in run.history)
