"""A program that saves another model over copies of one, and is killed in each save a little later:
`python dying_saves.py MODEL PLACE` leaves PLACE/at-1, at-3 and so on, the last one saved whole.

It is a process of its own because it forks: after a fork, OpenMP waits for ever for the threads
that a test before has started.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from omnima import Model
from omnima.hub import saving


def save_until(step: int, folder: Path, source: Path) -> None:
    """Save over a model and die at the given call that changes the directory."""
    calls = 0
    replace, unlink, write = os.replace, Path.unlink, saving._write_weights

    def counted(real: Any) -> Any:
        def call(*given: Any, **how: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **how)

        return call

    os.replace, Path.unlink = counted(replace), counted(unlink)  # type: ignore[method-assign]
    saving._write_weights = counted(write)
    changed = Model.from_pretrained(source)
    with torch.no_grad():
        for _, each in changed.named_parameters():
            each.mul_(2)
    changed.save_pretrained(folder, max_shard_size="20KB")


def main(source: Path, place: Path) -> int:
    """Save until one save ends by itself; its exit status."""
    for step in range(1, 60, 2):
        folder = place / f"at-{step}"
        shutil.copytree(source, folder)
        child = os.fork()
        if child == 0:
            save_until(step, folder, source)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            return status
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
