"""Every notebook runs from its first cell to its last in a fresh interpreter, what a cell shows has
a form for it, and the checks of its exercises know right answers from wrong ones.

An exercise is a cell whose metadata hold a right answer and wrong ones, each with a part of what
it is told; the cell behind it checks. The run tries the cell as it is, then the wrong answers, then
the right one, with which it goes on.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRELUDE = '''
from omnima.notebook import WrongAnswer as _WrongAnswer

def _show(value):
    for name in ("_repr_html_", "_repr_png_"):
        made = getattr(value, name, lambda: None)()
        if made is not None:
            return made
    return repr(value)

def _refused(answer, check, told):
    exec(answer, globals())
    try:
        exec(check, globals())
    except _WrongAnswer as error:
        assert told in str(error), f"{answer!r} is told {str(error)!r}, not {told!r}"
    else:
        raise AssertionError(f"{answer!r} passes for right")
'''


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(source: str) -> str:
    """The program of a cell; its last expression is shown as there."""
    tree = ast.parse(source)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        tree.body[-1] = ast.parse(f"_show({ast.unparse(last)})").body[0]
    return ast.unparse(tree)


def program_of(path: Path) -> str:
    """The cells of a notebook as one program."""
    parts = [PRELUDE]
    cells = cells_of(path)
    for place, cell in enumerate(cells):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "clear the outputs"
        source = "".join(cell["source"])
        exercise = cell["metadata"].get("exercise")
        parts.append(shown(source))
        if exercise is not None:
            check = "".join(cells[place + 1]["source"])
            parts.append(check)
            parts += [f"_refused({a!r}, {check!r}, {told!r})" for a, told in exercise["wrong"]]
            parts.append(exercise["right"])
    return "\n".join(parts)


def test_there_are_notebooks() -> None:
    assert len(PAGES) >= 6


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    exercises = [cell for cell in cells_of(path) if "exercise" in cell["metadata"]]
    assert exercises and all(cell["metadata"]["exercise"]["wrong"] for cell in exercises)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:omnima", "-c", program_of(path)],
        # Models as small as these gain nothing from threads, and a busy machine costs them much.
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.count(": not answered yet.") == len(exercises)
    assert done.stdout.count(": right.\n") == len(exercises)
