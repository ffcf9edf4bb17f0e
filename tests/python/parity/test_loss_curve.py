"""The first steps of training lie on transformers' curve: the benchmark, shortened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "loss_curve.py"


def test_a_hundred_steps_lie_on_the_reference() -> None:
    command = [sys.executable, str(SCRIPT), "--steps", "100", "--seeds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    distance = {row["name"].split(",")[0]: row["value"] for row in rows}
    assert distance["float32"] < 2e-3  # nats; only the order of sums differs
    assert distance["bfloat16"] < 0.05
    assert all(row["beside"] > 0.02 for row in rows)  # the spread of seeds is a real measure
