"""A training run on the user's text, in a process of its own, as a page sees it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.demo.past_runs import find_run
from omnima.demo.progress import Progress
from omnima.errors import ConfigError, DataError
from omnima.training.recipe import Recipe

TEXT_BYTES = 4 << 20
LEAST_BYTES = 200
MOST_STEPS = 20_000
SIZES = ("nima", "1m", "5m", "10m")
_SAMPLES = 5  # on the way
_EVALUATIONS = 20
_ENDING = 10.0  # seconds that a run has to save itself when the page ends
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
# Not `-m`, which looks for modules in the current directory first: that may be anybody's.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); from omnima.demo.worker import main; main()"
)


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes
    ----------
    text
        To learn from.
    size
        One of SIZES.
    steps, lr, patience
        As ``TrainConfig`` has them.
    name
        What the model is called; "": the time of day.
    """

    text: str
    size: str = "nima"
    steps: int = 300
    lr: float = 2e-3
    patience: int = 4
    name: str = ""

    def checked(self) -> bytes:
        """Return the text's bytes.

        Raises
        ------
        ConfigError, DataError
            A field out of bounds, or a text that nothing can be learned from.
        """
        if self.size not in SIZES:
            raise ConfigError(f"The size is {self.size!r:.40}; there is {', '.join(SIZES)}.")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ConfigError(f"{self.steps} steps asked for; from 1 to {MOST_STEPS:,} can be had.")
        if not self.lr > 0:
            raise ConfigError(
                f"The learning rate (lr) is {self.lr:g}; it must be above 0, or nothing is learned."
            )
        if self.name and not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"The name is {self.name!r:.60}; it has 1 to 41 letters, digits, dots, dashes and "
                "underscores, and begins with a letter or a digit."
            )
        return checked_text(self.text)


def checked_text(text: str) -> bytes:
    """Return a text as UTF-8.

    Raises
    ------
    DataError
        It is too short or too long, no text at all, or holds half of a character.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text holds half of a character at position {error.start}: it was not UTF-8."
        ) from None
    if len(data) > TEXT_BYTES:
        raise DataError(
            f"The text has {len(data):,} bytes; at most {TEXT_BYTES:,} are taken here. Use "
            "`omnima train` for more."
        )
    if "\0" in text:
        raise DataError("The text holds a zero byte: this is no text file.")
    if len(data) < LEAST_BYTES or not text.strip():
        raise DataError(
            f"The text has {len(data):,} bytes; give at least {LEAST_BYTES}, and better some "
            "hundred thousand: a model learns from much text."
        )
    return data


class Training:
    """At most one run at a time; several threads may ask at once.

    Parameters
    ----------
    runs
        Where runs go, a directory each, with the text that each learns from beside it.
    """

    def __init__(self, runs: str | Path) -> None:
        self.runs = Path(runs)
        self.progress = Progress()
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, order: Order) -> None:
        """Begin a run.

        Raises
        ------
        ConfigError, DataError, OSError
            One is under way, the order is none, the page is being closed, or the directory
            cannot be written.
        """
        with self._lock:
            self._check_free()
            self._start(order)

    def resume(self, name: str) -> None:
        """Go on with a run of the directory from its newest checkpoint, bit for bit as if it had
        never ended.

        Raises
        ------
        ConfigError, OSError
            One is under way, there is no such run, nothing is left of it to train, or the page is
            being closed.
        """
        with self._lock:
            self._check_free()
            run = find_run(self.runs, name)
            recipe = run.recipe()
            begun = f"“{run.name}” goes on after step {run.step}."
            progress = Progress(
                "starting", said="The run is opened.", of=run.of, name=run.name, begun=begun
            )
            self._begin({**recipe, "resume": True}, progress)

    def _check_free(self) -> None:
        if self._closed:
            raise ConfigError("The page is being closed: no run begins any more.")
        if self.progress.busy:
            raise ConfigError("A model is already being trained: stop that run, or wait.")

    def _start(self, order: Order) -> None:
        data = order.checked()
        place = self._place(order.name)
        recipe = recipe_of(order, place)
        Recipe.from_layers(recipe)  # what is wrong with it is said here
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durably(Path(recipe["data"][0]), data)
        progress = Progress("starting", said="The run starts.", of=order.steps, name=place.name)
        self._begin(recipe, progress)

    def _begin(self, recipe: dict[str, Any], progress: Progress) -> None:
        self._end_process()
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        _tell(process, json.dumps(recipe))
        self.progress, self._process = progress, process
        self._reader = threading.Thread(
            target=_read, args=[process, progress], name="omnima-training", daemon=True
        )
        self._reader.start()

    def stop(self) -> None:
        """Ask the run to end as if its steps were done: the model is kept."""
        with self._lock:
            if self._process is not None and self.progress.ask_to_stop():
                _tell(self._process, "stop")

    def close(self, seconds: float = _ENDING) -> None:
        """End the run, and begin no other one. It is asked to stop and to save itself; after
        `seconds` it is killed, and its newest checkpoint stays.
        """
        with self._lock:
            self._closed = True
            if self._process is not None:
                if self.progress.ask_to_stop():
                    _tell(self._process, "stop")
                try:
                    self._process.wait(seconds)
                except subprocess.TimeoutExpired:
                    self._process.kill()
            self._end_process()

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._reader is not None:
            self._reader.join()
        process.wait()
        for each in (process.stdin, process.stdout):
            if each is not None:
                with contextlib.suppress(BrokenPipeError):  # what it was told last came too late
                    each.close()

    def _place(self, name: str) -> Path:
        wanted = name or time.strftime("%Y-%m-%d-%H%M%S")
        place, number = self.runs / wanted, 1
        while os.path.lexists(place) or os.path.lexists(_text_of(place)):
            number += 1
            place = self.runs / f"{wanted}-{number}"
        return place


def recipe_of(order: Order, place: Path) -> dict[str, Any]:
    """Return the recipe of an order as `omnima train` knows it."""
    every = max(1, order.steps // _EVALUATIONS)
    return {
        "data": [str(_text_of(place))],
        "preset": order.size,
        "steps": order.steps,
        "lr": order.lr,
        "patience": order.patience,
        "restore_best": order.patience > 0,
        "batch_size": 8,
        "eval_every": every,
        "save_every": every,
        "keep_last": 1,
        "samples": 1,
        "sample_tokens": 80,
        "samples_every": max(1, order.steps // _SAMPLES),
        "alerts": "off",
        "out": str(place),
    }


def _text_of(place: Path) -> Path:
    """Where the text lies that a run learns from."""
    return place.with_name(place.name + ".txt")


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except OSError:  # it has just ended; whoever reads what it says finds out why
        pass


def _read(process: subprocess.Popen[str], progress: Progress) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            progress.take(json.loads(line))
    except Exception as error:  # noqa: BLE001 - whatever it was, the run is over and that is said
        process.kill()
        process.wait()
        progress.fail(f"what its process said cannot be read ({type(error).__name__}: {error}).")
        return
    status = process.wait()
    why = f"its process ended with status {status}"
    if status == -signal.SIGKILL:
        progress.fail(f"{why}, perhaps for lack of memory. A smaller size needs less.")
    else:
        progress.fail(f"{why}. What it wrote last stands where the demo was started.")
