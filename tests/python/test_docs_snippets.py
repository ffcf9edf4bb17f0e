"""Every snippet of the README and of docs/ runs: omnima commands and Python, a folder a page.

Blocks marked `console` (what takes minutes, or is not omnima's) and `text` are shown, not run; a
block without a mark is refused, so that no snippet is left out by oversight."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"console", "text", "{toctree}"}
OPENING = re.compile(r"^```(\S*).*\n.*?^```$", re.M | re.S)
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)


def commands_of(block: str) -> list[list[str]]:
    """The commands of a bash block; each must be one of omnima's."""
    commands = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "omnima", f"mark this block `console`, or begin with omnima: {line}"
            commands.append([sys.executable, "-m", "omnima", *words[1:]])
    return commands


def snippets_of(page: Path) -> list[list[str]]:
    """The commands of a page in order; Python blocks that follow each other share their names."""
    found: list[list[str]] = []
    before = ""
    for kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "bash":
            found += commands_of(block)
        elif before == "python":
            found[-1][-1] += block
        else:
            found.append([sys.executable, "-c", block])
        before = kind
    return found


def test_the_reader_of_pages_finds_snippets(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nomnima info \\\n  'a b'  # why\n```\n```console\nrm\n```\n"
        "```python\na = 1\n```\nand\n```python\nprint(a)\n```\n"
    )
    assert snippets_of(page) == [
        [sys.executable, "-m", "omnima", "info", "a b"],
        [sys.executable, "-c", "a = 1\nprint(a)\n"],
    ]
    with pytest.raises(AssertionError, match="console"):
        commands_of("ls -l")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    if page.parent.name == "reference":
        return  # generated, without blocks to run
    marks = OPENING.findall(page.read_text(encoding="utf-8"))
    assert set(marks) <= {"bash", "python", *SHOWN}


def test_no_room_is_without_snippets():
    rooms = {page.parent.name for page in PAGES if snippets_of(page)}
    assert rooms >= {"tutorials", "how-to", ROOT.name}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page, tmp_path):
    snippets = snippets_of(page)
    path = os.pathsep.join(p for p in (str(ROOT / "python"), os.environ.get("PYTHONPATH")) if p)
    for words in snippets:
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, **({"PYTHONPATH": path} if "PYTHONPATH" in os.environ else {})},
            capture_output=True,
            text=True,
        )
        shown = shlex.join(words[1:])
        assert done.returncode == 0, f"{shown}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
