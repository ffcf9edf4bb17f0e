"""Held-out loss on Tiny Shakespeare by characters, the usual 90/10 split, in fifteen minutes.

    python benchmarks/shakespeare.py --data input.txt [--minutes 15] [--peer COMMAND]

Trains by `examples/recipes/shakespeare.yaml`, then scores the last tenth of the text in windows of
the context, every character counted. `--peer` is a command to run afterwards on the quiet machine;
its last line must be JSON with `held_out` in nats a character.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT.parent / "shared" / "data" / "shakespeare" / "input.txt"


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command and read the JSON object in the last line of its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--set", action="append", default=[], help="recipe key=value")
    parser.add_argument("--peer", help="a command whose last line is JSON with held_out")
    given = parser.parse_args()
    if not given.data.is_file():
        print(f"skipped: no {given.data}; give Tiny Shakespeare's input.txt with --data")
        return
    recipe = ROOT / "examples" / "recipes" / "shakespeare.yaml"
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "omnima", "train", "--config", str(recipe), "--json"]
        command += ["--data", str(given.data), "--minutes", str(given.minutes)]
        command += ["--out", str(Path(directory) / "run")]
        for pair in given.set:
            command += ["--set", pair]
        ours = last_json(command)
    peer = last_json(shlex.split(given.peer)) if given.peer else {}
    print(json.dumps({"omnima": ours, "peer": peer}))
    row = {"name": f"held-out loss after {given.minutes:g} minutes", "unit": "nats/character"}
    print(json.dumps({**row, "value": ours["val_loss"], "beside": peer.get("held_out")}))


if __name__ == "__main__":
    main()
