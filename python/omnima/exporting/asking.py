"""Ask another tool about a model, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import omnima
from omnima.errors import OmnimaError
from omnima.exporting.peers import Answers, Questions

#: The module of each tool.
MODULES = {"transformers": "transformers", "llama.cpp": "llama_cpp"}
INSTALL = {
    "transformers": "pip install 'omnima[hf]'",
    "llama.cpp": "pip install 'omnima[gguf]' (llama-cpp-python, which is compiled on the way)",
}
#: How the process ends where its tool is not installed.
NOT_INSTALLED = 3


class ExportError(OmnimaError):
    """A model is not the same in another tool, or the tool cannot read it."""


def ask(kind: str, path: Path, questions: Questions) -> Answers | None:
    """What a tool ("transformers", "llama.cpp") finds in a model; None: it is not installed.

    Its process works in an empty directory, for Python imports what lies where it works, and a
    model's directory may hold programs; it has no input, where tools ask whether to run them.

    Raises
    ------
    ExportError
        The tool cannot read the model, or dies of it: its last words.
    """
    with tempfile.TemporaryDirectory(prefix="omnima-verify-") as place:
        text = json.dumps(dataclasses.asdict(questions))
        (Path(place) / "questions.json").write_text(text, encoding="utf-8")
        home = str(Path(omnima.__file__).parent.parent)
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = [home, *(os.path.abspath(each) for each in given if each)]
        ended = subprocess.run(
            [sys.executable, "-m", "omnima.exporting", kind, os.path.abspath(path), place],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        if ended.returncode == NOT_INSTALLED:
            return None
        if ended.returncode != 0:
            raise ExportError(f"{kind} cannot read {path}: {_last_words(ended)}")
        return Answers.read(Path(place))


def _last_words(ended: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    said = " / ".join(lines[-3:])[-600:] or "it says nothing"
    if ended.returncode < 0:
        return f"it was ended by {signal.Signals(-ended.returncode).name}: {said}"
    return said
