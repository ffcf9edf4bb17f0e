"""Every notebook runs from its first cell to its last, and what a cell shows has a form for it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))


def program_of(path: Path) -> str:
    """The cells of a notebook as one program; the last expression of a cell is shown as there."""
    book = json.loads(path.read_text(encoding="utf-8"))
    parts = ["def _show(value):\n    getattr(value, '_repr_html_', lambda: repr(value))()\n"]
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [] and cell["execution_count"] is None, "clear the outputs"
        tree = ast.parse("".join(cell["source"]))
        if tree.body and isinstance(last := tree.body[-1], ast.Expr):
            tree.body[-1] = ast.parse(f"_show({ast.unparse(last)})").body[0]
        parts.append(ast.unparse(tree))
    return "\n".join(parts)


def test_there_are_notebooks() -> None:
    assert PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:omnima", "-c", program_of(path)],
        cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "→" in done.stdout
