"""Runs the benchmarks beside this file and prints the machine, their reports and one table.

    python benchmarks/run_all.py [--full] [NAME ...]

Without --full it takes less than 15 minutes on two cores: fewer rounds, and not what trains for as
long by itself. A benchmark is a script that prints what it likes and, for the table, JSON lines
`{"name": ..., "value": ..., "unit": ..., "beside": ...}` (`beside`: the peer's value, if any)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOT_MEASURED = {"run_all", "gate"}
FULL_ONLY = {"curriculum", "optimizers", "recipes", "shakespeare"}
KNOW_FULL = {"train", "tokenize_text"}


def rows_of(output: str) -> list[dict[str, Any]]:
    """The JSON lines among what a benchmark printed."""
    rows = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line for people that happens to begin with a brace
            if {"name", "value", "unit"} <= row.keys():
                rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, so that they can go into the documentation as they are."""
    lines = ["| benchmark | what | value | unit | beside |", "| --- | --- | ---: | --- | ---: |"]
    for row in rows:
        beside = "" if row.get("beside") is None else f"{row['beside']:.4g}"
        value = f"{row['value']:.4g}"
        lines.append(f"| {row['benchmark']} | {row['name']} | {value} | {row['unit']} | {beside} |")
    return "\n".join(lines)


def main() -> int:
    from omnima.doctor import collect, render

    print(render(collect()))
    chosen = set(sys.argv[1:]) - {"--full"}
    full = "--full" in sys.argv[1:]
    rows: list[dict[str, Any]] = []
    failed = []
    for script in sorted(HERE.glob("*.py")):
        name = script.stem
        if name in NOT_MEASURED or (chosen and name not in chosen):
            continue
        if name in FULL_ONLY and not full and name not in chosen:
            continue
        print(f"== {script.stem}", flush=True)
        start = time.perf_counter()
        words = [sys.executable, str(script)]
        words += ["--full"] if full and name in KNOW_FULL else []
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="")
        print(f"({time.perf_counter() - start:.0f} s)\n", flush=True)
        if done.returncode != 0:
            failed.append(script.stem)
        rows += [{"benchmark": script.stem, **row} for row in rows_of(done.stdout)]
    print(table(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
