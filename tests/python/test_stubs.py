"""The checked-in stub of the extension is what the generator writes today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_stub_equals_the_generated_one():
    pytest.importorskip("pybind11_stubgen", reason="pybind11-stubgen is not installed")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_stubs.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
