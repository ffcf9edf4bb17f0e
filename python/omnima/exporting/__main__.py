"""The process that asks another tool: `python -m omnima.exporting TOOL MODEL PLACE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omnima.exporting.asking import MODULES, NOT_INSTALLED
from omnima.exporting.peers import PEERS, Questions


def main(kind: str, path: str, place: str) -> int:
    """Answer the questions that lie in `place`, a directory, there."""
    given = json.loads((Path(place) / "questions.json").read_text(encoding="utf-8"))
    try:
        answers = PEERS[kind](Path(path), Questions(**given))
    except ModuleNotFoundError as error:
        if error.name != MODULES[kind]:
            raise
        return NOT_INSTALLED
    answers.write(Path(place))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
