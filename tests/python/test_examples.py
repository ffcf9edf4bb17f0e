"""Every script in examples/scripts runs and does what it says, one after the other on one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "scripts"
STORY = (
    "Long ago there lived a kind mouse named Otto. He lived by the river with his brother. "
    "One morning, he went to the bridge. There he met a funny dog named Fifi."
)


def run(where: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments], cwd=where, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a story, sums, and a model of some seconds."""
    place = tmp_path_factory.mktemp("examples")
    (place / "story.txt").write_text(STORY * 6)
    sums = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in range(9) for b in range(9)]
    (place / "sums.jsonl").write_text("".join(json.dumps(each) + "\n" for each in sums))
    told = run(
        place, "train_a_model.py", "model", "tinyworld:200KB", "--minutes", "0.03",
        "--preset", "nima",
    )  # fmt: skip
    assert told.startswith("held-out perplexity ")
    return place


def test_every_script_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    scripts = sorted(each.name for each in SCRIPTS.glob("*.py"))
    assert len(scripts) >= 4 and all(f'"{name}"' in text for name in scripts)


def test_an_adapter_learns_and_answers(where: Path) -> None:
    told = run(where, "fine_tune.py", "model", "sums.jsonl", "adapter", "--steps", "12")
    line = next(each for each in told.splitlines() if each.startswith("held-out loss"))
    before, after = (float(each) for each in line.removeprefix("held-out loss ").split(" → "))
    assert after < before and (where / "adapter" / "adapter_config.json").exists()
    answers = run(where, "talk.py", "model", "--adapter", "adapter", "2+2=", "3+4=")
    assert answers.startswith("> 2+2=\n") and answers.count(" tokens, ") == 2


def test_a_small_model_is_compared_with_the_large_one(where: Path) -> None:
    told = run(where, "make_small.py", "model", "small", "story.txt", "--to", "int8")
    assert float(told.split(" bits")[0]) < 10 and "perplexity " in told
    lines = run(where, "compare.py", "story.txt", "model", "small").splitlines()
    bits = [float(line.split(" bits")[0]) for line in lines]
    assert len(bits) == 2 and bits == sorted(bits) and bits[1] < 1.05 * bits[0]


def test_a_long_text_is_read_once(where: Path) -> None:
    (where / "short.txt").write_text(STORY)
    told = run(where, "prompt_cache.py", "model", "short.txt", "Who met Fifi?", "Who is kind?")
    first, second = told.splitlines()
    assert "(0 of " in first and "(0 of " not in second


def test_pictures_of_the_inside(where: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(where, "look_inside.py", "model", STORY, "seen").startswith("loss ")
    assert (where / "seen" / "attention.png").read_bytes()[:4] == b"\x89PNG"
    assert "<small" in (where / "seen" / "expected.html").read_text(encoding="utf-8")
