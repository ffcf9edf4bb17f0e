"""A run on the user's text: what is refused, what is told on the way, how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.demo.progress import Progress
from omnima.demo.training import (
    LEAST_BYTES,
    TEXT_BYTES,
    Order,
    Training,
    _read,
    recipe_of,
)
from omnima.demo.worker import Teller, work
from omnima.errors import ConfigError, DataError

TEXT = "\n\n".join(f"To be, or not to be: {n} times the question." for n in range(60))


def until(what: Callable[[], Any], seconds: float = 180.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    "order,why",
    [
        (Order("a" * (LEAST_BYTES - 1)), "at least 200"),
        (Order(" " * 1000), "at least 200"),
        (Order("é" * (TEXT_BYTES // 2 + 1)), "at most 4,194,304"),
        (Order("a\0" * 1000), "zero byte"),
        (Order("a" * 1000 + "\ud800"), "position 1000"),
        (Order(TEXT, size="../1b"), "The size is"),
        (Order(TEXT, steps=0), "0 steps"),
        (Order(TEXT, steps=10**6), "20,000"),
        (Order(TEXT, name="../../etc"), "The name is"),
        (Order(TEXT, lr=-1.0), "lr"),
        (Order(TEXT, lr=0.0), "above 0"),
        (Order(TEXT, lr=float("nan")), "lr"),
        (Order(TEXT, patience=-1), "patience"),
    ],
)
def test_what_cannot_be_trained_is_said(order: Order, why: str, tmp_path: Path) -> None:
    training = Training(tmp_path / "runs")
    with pytest.raises((ConfigError, DataError), match=why):
        training.start(order)
    assert training.progress.state == "idle" and not (tmp_path / "runs").exists()


def test_a_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    training = Training(tmp_path / "runs")
    training.stop()  # nothing to stop
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    training.start(Order(TEXT, steps=8, name="mine"))
    try:
        progress = training.progress
        assert progress.state in ("starting", "running")
        with pytest.raises(ConfigError, match="already being trained"):
            training.start(Order(TEXT))
        until(lambda: not progress.busy)
        assert (progress.state, progress.name) == ("done", "mine-2"), progress.said
        assert [each["step"] for each in progress.history] == list(range(1, 9))
        assert progress.history[-1]["loss"] < progress.history[0]["loss"]
        assert sum("val_loss" in each for each in progress.history) >= 4
        assert progress.samples and "after 8 steps" in progress.said
        assert (Path(progress.directory) / "model.safetensors").exists()

        # Another one, which is stopped: its model is kept.
        training.start(Order(TEXT, steps=20_000, patience=0, name="long"))
        progress = training.progress
        until(lambda: progress.history)
        training.stop()
        assert progress.state in ("stopping", "done")
        until(lambda: not progress.busy)
        assert progress.state == "done" and "Stopped by you" in progress.said
        assert (tmp_path / "runs" / "long" / "model.safetensors").exists()
    finally:
        training.close()


def test_a_process_that_dies_is_told_of(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.start(Order(TEXT, steps=20_000))
    progress, process = training.progress, training._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not progress.busy)
    assert progress.state == "failed" and "status -9" in progress.said
    training.close()
    assert process.returncode == -9


class Asked(io.StringIO):
    """Standard input of a run that nobody stops: after the recipe nothing comes till it is over."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        super().__init__(json.dumps(recipe) + "\n")
        self.over = threading.Event()

    def readline(self, size: int | None = -1, /) -> str:
        if line := super().readline(-1):
            return line
        self.over.wait()
        return ""


def test_the_worker_stops_early_and_says_so(tmp_path: Path) -> None:
    place = tmp_path / "run"
    (tmp_path / "run.txt").write_text(TEXT)
    # A learning rate at which nothing is learned: patience ends it.
    recipe = recipe_of(Order(TEXT, steps=400, lr=0.0, patience=2), place)
    out, asked = io.StringIO(), Asked({**recipe, "eval_every": 3, "save_every": 3})
    try:
        work(asked, out)
    finally:
        asked.over.set()
    progress = Progress("starting", of=400)
    for line in out.getvalue().splitlines():
        progress.take(json.loads(line))
    assert progress.state == "done" and len(progress.history) < 400
    assert progress.said.startswith("Stopped early"), progress.said
    assert "with the weights of step" in progress.said


def test_the_worker_ends_when_the_page_goes(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text(TEXT)
    recipe = recipe_of(Order(TEXT, steps=5000, patience=0), tmp_path / "run")
    out = io.StringIO()
    work(io.StringIO(json.dumps(recipe) + "\n"), out)
    last = json.loads(out.getvalue().splitlines()[-1])
    assert last["steps_done"] < 5000
    silent = io.StringIO()
    work(io.StringIO(""), silent)
    assert silent.getvalue() == ""


def test_the_worker_says_what_is_wrong(tmp_path: Path) -> None:
    for recipe in (
        recipe_of(Order(TEXT), tmp_path / "without-text"),
        {"data": 3},
    ):
        out = io.StringIO()
        work(io.StringIO(json.dumps(recipe) + "\n"), out)
        progress = Progress("starting")
        progress.take(json.loads(out.getvalue().splitlines()[-1]))
        assert progress.state == "failed" and "Training failed" in progress.said


def test_a_text_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("mine")
    (tmp_path / "tales.txt").mkdir()
    training = Training(tmp_path)
    try:
        for name in ("poems", "tales"):
            training.start(Order(TEXT, steps=1, name=name))
            assert training.progress.name == f"{name}-2"
            assert (tmp_path / f"{name}-2.txt").read_text() == TEXT
            until(lambda: not training.progress.busy)
    finally:
        training.close()
    assert (tmp_path / "poems.txt").read_text() == "mine"


def test_of_several_starts_at_once_one_is_taken(tmp_path: Path) -> None:
    training, refused = Training(tmp_path), []

    def start() -> None:
        try:
            training.start(Order(TEXT, steps=20_000, patience=0))
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    process = training._process
    training.close(0)
    assert len(refused) == 3 and len(list(tmp_path.glob("*.txt"))) == 1
    assert process is not None and process.returncode is not None
    with pytest.raises(ConfigError, match="being closed"):
        training.start(Order(TEXT))
    assert len(list(tmp_path.glob("*.txt"))) == 1


def test_a_run_saves_itself_when_the_page_ends(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.start(Order(TEXT, steps=20_000, patience=0, name="long"))
    until(lambda: training.progress.history)
    training.close(120)
    assert training.progress.state == "done", training.progress.said
    assert (tmp_path / "long" / "model.safetensors").exists()


@pytest.mark.parametrize("patience", [0, 4])
def test_every_run_is_saved_on_the_way(patience: int, tmp_path: Path) -> None:
    recipe = recipe_of(Order(TEXT, steps=2000, patience=patience), tmp_path / "run")
    assert recipe["save_every"] == 100


@pytest.mark.parametrize("line", ["a library prints", "3", '{"steps": 1}'])
def test_a_process_that_says_no_message_is_a_failure(line: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"print({line!r}, flush=True); import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    progress = Progress("running")
    with process:
        _read(process, progress)
    assert progress.state == "failed" and "cannot be read" in progress.said


def test_only_a_kill_hints_at_memory() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE, text=True
    )
    progress = Progress("running")
    with process:
        _read(process, progress)
    assert "status 3" in progress.said and "smaller" not in progress.said


def test_what_is_done_is_not_stopped() -> None:
    progress = Progress("done", said="Done.")
    assert not progress.ask_to_stop() and (progress.state, progress.said) == ("done", "Done.")
    progress.fail("late")
    assert progress.state == "done"


def test_what_a_library_prints_is_no_message() -> None:
    program = (
        "import os; from omnima.demo.worker import own_output; out = own_output(); print('noise');"
        "os.write(1, b'core'); out.write('said'); out.flush()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "said" and "noise" in done.stderr and "core" in done.stderr


def test_lines_are_whole_when_several_threads_speak() -> None:
    out = io.StringIO()
    teller = Teller(out)
    threads = [
        threading.Thread(target=lambda: [teller.tell(step=1, sample="a" * 50) for _ in range(50)])
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {json.loads(line)["sample"] for line in out.getvalue().splitlines()} == {"a" * 50}
