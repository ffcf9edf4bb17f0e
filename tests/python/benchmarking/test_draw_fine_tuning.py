"""The curves of fine-tuning as a picture: every system of every benchmark is in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "draw_fine_tuning.py"


def draw(out: Path, *lines: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, lines), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_run_is_a_line_of_its_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = []
    for what, system in (("sft", "omnima"), ("sft", "peft"), ("dpo", "trl")):
        path = tmp_path / f"{what}-{system}.jsonl"
        points = [
            {
                "what": what, "system": system, "minutes": i, "held_out": 3.0 - i, "step": i + 1,
                "loss": 0.7, "accuracy": 0.5,
            }
            for i in range(2)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(each) + "\n" for each in points))
        paths.append(path)
    out = tmp_path / "curves.svg"
    done = draw(out, *paths)
    assert done.returncode == 0, done.stderr
    picture = out.read_text()
    for text in ("Omnima", "transformers + PEFT", "TRL + PEFT", "Held-out loss", "Accuracy of"):
        assert text in picture
    again = tmp_path / "again.svg"
    draw(again, *paths)
    assert again.read_text() == picture  # nothing of the time or the place is in it
    draw(again, paths[0])
    assert "TRL" not in again.read_text() and "Held-out loss" in again.read_text()
