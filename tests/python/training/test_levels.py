"""Levels of instructions forced one by one: the same losses, and runs that repeat bit for bit."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
from itertools import product

import pytest

STEPS = 12
# What a level is asked for in its process: every format, thread count and number of rows. One row
# cannot be shared out, so there the threads work on the same operator.
CASES = list(product(("fp32", "bf16"), (1, 2), (1, 5)))
SCRIPT = """
import hashlib, json, sys
import torch
import omnima
from omnima import _core

CASES, STEPS = json.loads(sys.argv[1])
SHAPE = dict(vocab_size=89, hidden_size=48, intermediate_size=136, num_hidden_layers=2,
             num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=37)

def stepper(precision):
    options = _core.StepOptions()
    options.precision, options.lr, options.schedule = precision, 1e-2, "constant"
    return _core.TrainStep(omnima.Model.from_config(SHAPE, seed=3).core, options)

def train(step, rows, first, last):
    losses = []
    for at in range(first, last):
        ids = torch.randint(89, (rows, 38), generator=torch.Generator().manual_seed(at))
        ids[:, 1::2] = (ids[:, 0:-1:2] * 5 + 1) % 89  # what follows from the token before
        losses.append(step.run_batches([(ids[:, :-1], ids[:, 1:])]).loss)
    return losses

def digest(step):
    buffers = [value.numpy().tobytes() for _, value in sorted(step.state().items())]
    return hashlib.sha256(b"".join(buffers)).hexdigest()

found = []
for precision, threads, rows in CASES:
    torch.set_num_threads(threads)
    once, again, half = (stepper(precision) for _ in range(3))
    losses = train(once, rows, 0, STEPS)
    repeated = train(again, rows, 0, STEPS) == losses and digest(again) == digest(once)
    train(half, rows, 0, STEPS // 2)
    resumed = stepper(precision)
    resumed.load_state({key: value.clone() for key, value in half.state().items()}, STEPS // 2)
    rest = train(resumed, rows, STEPS // 2, STEPS)
    found.append(dict(losses=losses, repeats=repeated,
                      resumes=rest == losses[STEPS // 2:] and digest(resumed) == digest(once)))
print(json.dumps(dict(level=str(_core.cpu_level()), found=found)))
"""


def run(level: str | None, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own with this level forced."""
    surroundings = {key: value for key, value in os.environ.items() if key != "OMNIMA_CPU_ISA"}
    if level is not None:
        surroundings["OMNIMA_CPU_ISA"] = level
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=300)


@functools.cache
def levels() -> tuple[str, ...]:
    """The levels of this machine, as the error about a level that nobody has lists them."""
    code = "from omnima import _core; _core.cpu_level()"
    listed = re.search(r"This CPU has: ([\w, ]+)\.", run("abacus", code).stderr)
    assert listed is not None
    return tuple(listed.group(1).split(", "))


@functools.cache
def trained(level: str | None) -> tuple[str, list[dict[str, object]]]:
    done = run(level, SCRIPT, json.dumps([CASES, STEPS]))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["level"], answer["found"]


def test_the_lowest_level_is_there_and_the_best_is_chosen() -> None:
    assert levels()[0] == "generic"
    chosen = run(None, "from omnima import _core; print(_core.cpu_level())").stdout.strip()
    assert chosen == levels()[-1]


@pytest.mark.parametrize("level", levels())
def test_a_forced_level_repeats_and_resumes_bit_for_bit(level: str) -> None:
    used, found = trained(level)
    assert used == level
    for case, result in zip(CASES, found, strict=True):
        assert result["repeats"], case
        assert result["resumes"], case


@pytest.mark.parametrize("level", levels())
def test_every_level_learns_alike_within_rounding(level: str) -> None:
    _, lowest = trained("generic")
    _, found = trained(level)
    for index, ((precision, _, rows), result) in enumerate(zip(CASES, found, strict=True)):
        losses = result["losses"]
        assert isinstance(losses, list)
        assert rows == 1 or losses[-1] < losses[0] - 0.5  # five rows a step teach something
        near = 1e-4 if precision == "fp32" else 6e-2
        same_case, float_case = lowest[index], lowest[CASES.index(("fp32", 1, rows))]
        for other in (same_case["losses"], float_case["losses"]):
            assert isinstance(other, list)
            worst = max(abs(a - b) for a, b in zip(losses, other, strict=True))
            assert worst < near and math.isfinite(worst), (CASES[index], worst)


def test_a_level_that_is_not_here_is_an_error_that_teaches() -> None:
    code = (
        "import torch, omnima; "
        "omnima.Model.from_preset('nima', vocab_size=64)(torch.tensor([[1, 2]]))"
    )
    known = {"avx2", "avx512", "avx512vnni", "avx512bf16", "amx"}
    for name in [*sorted(known - set(levels())), "AVX2"]:
        done = run(name, code)
        assert done.returncode != 0
        assert f'omnima.errors.ConfigError: OMNIMA_CPU_ISA is "{name}"' in done.stderr
        assert ("that this CPU lacks" in done.stderr) == (name in known)
        assert f"This CPU has: {', '.join(levels())}." in done.stderr
