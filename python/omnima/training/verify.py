"""`--verify-resume`: proves on the user's own recipe that stopping and resuming changes no byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omnima.errors import CheckpointError, OmnimaError
from omnima.training.display import Display
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.repeat import with_choices
from omnima.training.rundir import RunDirectory
from omnima.training.trainer import out_of

_STEPS = 12


def verify_resume(recipe: Recipe, display: Display | None = None) -> dict[str, Any]:
    """Train N steps at once, and N/2 steps plus a resume in a second process; compare the bytes.

    Both runs go into `out/verify-resume`. The result says whether weights and optimizer state are
    equal, with their hashes.
    """
    display = display if display is not None else Display()
    steps = max(2, min(recipe.train.steps or _STEPS, _STEPS))
    place = out_of(recipe.train) / "verify-resume"
    hashes = {}
    for name, half in (("straight", None), ("resumed", steps // 2)):
        out = place / name
        part = _short(recipe, steps, out)
        display.note(f"Verifying resume: {steps} steps, {name}.")
        train(part, overwrite=True, display=Display(silent=True), stop_after=half)
        # A second measurement could choose otherwise, and the runs would differ for that alone.
        recipe = with_choices(recipe, RunDirectory(out))
        if half is not None:
            _resume_elsewhere(out)
        hashes[name] = _hashes(out)
    same = hashes["straight"] == hashes["resumed"]
    return {"identical": same, "steps": steps, "resumed_at": steps // 2, **hashes["straight"]}


def _short(recipe: Recipe, steps: int, out: Path) -> Recipe:
    wanted = recipe.train.curriculum_steps
    training = dataclasses.replace(
        recipe.train,
        steps=steps,
        curriculum_steps=None if wanted is None else min(wanted, steps),
        minutes=None,
        epochs=None,
        warmup=None if recipe.train.warmup is None else min(recipe.train.warmup, steps),
        eval_batches=1,
        samples=0,
        samples_every=0,
        track=(),
        alerts=("off",),
        alert_webhook=None,
        out=str(out),
    )
    return dataclasses.replace(recipe, train=training)


def _resume_elsewhere(out: Path) -> None:
    import torch

    # Reads config.yaml, which holds the whole recipe; the order of sums follows from the threads.
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "omnima", "train", "--resume", "--json"]
    command += ["--config", str(RunDirectory(out).config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode != 0:
        raise OmnimaError(f"The resumed process failed: {done.stderr.strip()[-2000:]}")


def _hashes(out: Path) -> dict[str, str]:
    from omnima.training.checkpoint import latest_checkpoint

    found = latest_checkpoint(out)
    if found is None:
        raise CheckpointError(f"{out} holds no valid checkpoint: nothing can be compared.")
    weights = hashlib.sha256()
    for path in sorted((Path(found.path) / "model").glob("*.safetensors")):
        weights.update(path.read_bytes())
    optimizer = hashlib.sha256((Path(found.path) / "optimizer.safetensors").read_bytes())
    return {"weights_sha256": weights.hexdigest(), "optimizer_sha256": optimizer.hexdigest()}


def verdict(result: dict[str, Any]) -> str:
    """Write the result of `verify_resume` as a sentence."""
    steps, half = result["steps"], result["resumed_at"]
    if result["identical"]:
        return (
            f"Resume is exact: {steps} steps at once and {half} steps, resumed in a "
            f"second process, "
            f"end with the same bytes (weights {result['weights_sha256'][:16]})."
        )
    return json.dumps(result) + f"\nResume is NOT exact after {steps} steps: please report this."
