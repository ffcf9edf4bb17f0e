"""What is known of a training run while it goes on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """What is known of the newest run. One thread reads what its process says while others ask it
    to stop: all changes go through the methods.

    Attributes
    ----------
    state
        idle, starting, running, stopping, done or failed.
    history
        A dict a step: step, loss, val_loss where it was measured.
    of
        Steps of the whole run.
    samples
        (step, text) that the model wrote on the way, the newest last.
    said
        How it stands, in a sentence.
    directory
        Of the model, when it is done.
    name
        What it is to be called.
    begun
        What is said when its first step of now is done.
    """

    state: str = "idle"
    history: list[dict[str, Any]] = field(default_factory=list)
    of: int = 0
    samples: list[tuple[int, str]] = field(default_factory=list)
    said: str = ""
    directory: str = ""
    name: str = ""
    begun: str = "Training has begun."
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def busy(self) -> bool:
        """Whether a process works."""
        return self.state in ("starting", "running", "stopping")

    def take(self, said: dict[str, Any]) -> None:
        """Take a line of the process."""
        with self._lock:
            self._take(said)

    def ask_to_stop(self) -> bool:
        """Note that the run is to stop; False where none runs, or it was asked before."""
        with self._lock:
            if self.state not in ("starting", "running"):
                return False
            self.state = "stopping"
            self.said = "The run is being stopped; its model is kept."
            return True

    def fail(self, why: str) -> None:
        """Note why the run ended, where it has not said so itself."""
        with self._lock:
            if self.busy:
                self.said, self.state = f"Training failed: {why}", "failed"

    def _take(self, said: dict[str, Any]) -> None:
        if "before" in said:
            self.history, self.of = said["before"], said["of"] or self.of
        elif "steps" in said:
            self.history += said["steps"]
            self.of = said["of"]
            if self.state == "starting":
                self.state, self.said = "running", self.begun
        elif "done" in said:
            self._done(said)
        elif "failed" in said:
            self.said, self.state = f"Training failed: {said['failed']}", "failed"
        elif "sample" in said:
            self._sample(said["step"], said["sample"])
        elif "val_loss" in said and self.history and self.history[-1]["step"] == said["step"]:
            self.history[-1]["val_loss"] = said["val_loss"]

    def _sample(self, step: int, text: str) -> None:
        if (step, text.strip()) not in self.samples[-1:]:
            self.samples.append((step, text.strip()))

    def _done(self, said: dict[str, Any]) -> None:
        steps, asked = said["steps_done"], self.state == "stopping"
        why = "Training is done"
        if steps < self.of:
            why = "Stopped by you" if asked else "Stopped early: the held-out loss fell no further"
        told = f"{why}, after {steps} steps."
        if said["val_loss"] is not None:
            told += f" Held-out loss {said['val_loss']:.3f}"
            best = said["best_step"]
            told += f", with the weights of step {best}." if best else "."
        for text in said["samples"][:1]:
            self._sample(steps, text)
        # The state last: whoever sees it finds the rest.
        self.said, self.directory, self.state = told, said["done"], "done"
