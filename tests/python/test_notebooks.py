"""Every notebook runs from its first cell to its last in a clean kernel, what its cells show can be
seen, and the checks of its exercises know right answers from wrong ones.

An exercise is a cell whose metadata hold a right answer and wrong ones, each with a part of what
it is told; the cell behind it checks. The run tries the cell as it is, then the wrong answers, then
the right one, with which it goes on.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
from matplotlib import font_manager, image
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 180  # what a notebook may take
DRAWS = re.compile(r"^(figure|view|seen)$|\bplot(_\w+)?\(|LivePlot\(\)|omnima\.inspect\(", re.M)
PICTURES = {"image/png", "image/svg+xml", "text/html"}
TROUBLE = re.compile(r"Traceback|\w*(Warning|Error)\b|\bwarning:", re.I)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a kernel of this interpreter; nothing that is installed is read, and no home is
    written to."""
    home = tmp_path_factory.mktemp("jupyter")
    spec = home / "kernels" / "these-tests"
    spec.mkdir(parents=True)
    font_manager.findfont("DejaVu Sans")  # the list of fonts is made once, before any kernel
    described = {
        "display_name": "these tests",
        "language": "python",
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "env": {
            "IPYTHONDIR": str(home / "ipython"),
            "MPLCONFIGDIR": matplotlib.get_cachedir(),
            # Models as small as these gain nothing from threads; a busy machine costs them much.
            "OMP_NUM_THREADS": "1",
        },
    }
    (spec / "kernel.json").write_text(json.dumps(described))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JUPYTER_DATA_DIR", str(home))
        patched.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        patched.setenv("JUPYTER_CONFIG_DIR", str(home / "config"))
        yield spec.name


def cells_of(path: Path) -> list[Any]:
    cells: list[Any] = nbformat.read(path, nbformat.NO_CONVERT).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def with_answers(cells: list[Any]) -> list[Any]:
    """The cells, with every answer that an exercise knows tried before its check comes."""
    found = []
    for place, cell in enumerate(cells):
        found.append(cell)
        exercise = cell.metadata.get("exercise")
        if exercise is None:
            continue
        check = cells[place + 1].source
        found.append(new_cell(check, says=": not answered yet."))
        for answer, told in exercise["wrong"]:
            found.append(new_cell(answer))
            found.append(new_cell(check, refuses=told, tags=["raises-exception"]))
        found.append(new_cell(exercise["right"]))
        cells[place + 1].metadata["says"] = ": right.\n"
    return found


def new_cell(source: str, **metadata: Any) -> Any:
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def run(cells: list[Any], kernel: str, folder: Path, seconds: float = SECONDS) -> None:
    """Run cells in a kernel of their own, in which nothing ran before."""
    end = time.monotonic() + seconds
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells),
        kernel_name=kernel,
        timeout_func=lambda cell: max(end - time.monotonic(), 0.1),
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def look(cell: Any) -> None:
    """What a cell left behind is what it should: its words, its pictures and no complaints."""
    for output in cell.outputs:
        if output.output_type == "execute_result":
            look_at_value(output.data, cell.source)
        if output.output_type == "stream" and output.name == "stderr":
            assert not TROUBLE.search(output.text), f"{cell.source}\n{output.text}"
    refused = [each for each in cell.outputs if each.output_type == "error"]
    told = cell.metadata.get("refuses")
    if told is not None:
        assert [each.ename for each in refused] == ["WrongAnswer"], f"passes:\n{cell.source}"
        assert told in refused[0].evalue, f"told {refused[0].evalue!r}, not {told!r}"
        return
    assert not refused
    said = "".join(each.text for each in cell.outputs if each.get("name") == "stdout")
    assert cell.metadata.get("says", "") in said
    if DRAWS.search(cell.source):
        assert any(PICTURES & set(each.get("data", ())) for each in cell.outputs), cell.source
    for output in cell.outputs:
        if "image/png" in (data := output.get("data", {})):
            look_at_picture(data["image/png"])


def look_at_value(data: dict[str, str], source: str) -> None:
    """A value has a form that people can look at, or is written as Python writes plain ones."""
    if not PICTURES & set(data):
        try:
            ast.literal_eval(data["text/plain"])
        except (ValueError, SyntaxError):
            pytest.fail(f"shown as {data['text/plain']!r}:\n{source}")


def look_at_picture(png: str) -> None:
    drawn = image.imread(io.BytesIO(base64.b64decode(png)))
    assert min(drawn.shape[:2]) > 100 and drawn.std() > 0.01, "an empty picture"


def test_there_are_notebooks() -> None:
    assert len(PAGES) >= 6


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path: Path) -> None:
    cells = cells_of(path)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells), (
        "clear the outputs"
    )
    exercises = [cell.metadata.exercise for cell in cells if "exercise" in cell.metadata]
    assert exercises and all(each["wrong"] for each in exercises)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: str, tmp_path: Path) -> None:
    cells = with_answers(cells_of(path))
    run(cells, kernel, tmp_path)
    for cell in cells:
        look(cell)
    assert sum(DRAWS.search(cell.source) is not None for cell in cells) >= 1


def test_the_run_sees_what_is_wrong(kernel: str, tmp_path: Path) -> None:
    quiet, *loud = cells = [
        new_cell("import sys, warnings; sys.stderr.write('100%  step 1/1\\n'); [1, 'a']"),
        new_cell("warnings.warn('take care')"),
        new_cell("object()"),
        new_cell("figure = 1\nfigure"),
        new_cell("print('Sums: right.')", says="not answered"),
        new_cell("1", refuses="that is 1", tags=["raises-exception"]),
        new_cell("raise ValueError('that is 1')", refuses="that", tags=["raises-exception"]),
    ]
    run(cells, kernel, tmp_path)
    look(quiet)
    for cell in loud:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            look(cell)
    assert not os.listdir(tmp_path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run([new_cell("quiet = 1 / 0")], kernel, tmp_path)


def test_a_notebook_that_takes_too_long_is_ended(kernel: str, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        run([new_cell("while True: pass")], kernel, tmp_path, seconds=0.5)
