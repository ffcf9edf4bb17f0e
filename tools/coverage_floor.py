"""Says the coverage of lines and of branches, each by itself, and fails below the floor: the total
of `coverage report` mixes both, and there many lines could hide few branches.

    coverage json -q -o - | python tools/coverage_floor.py 95
"""

from __future__ import annotations

import json
import sys


def shares(totals: dict[str, int]) -> dict[str, float]:
    """Per cent of lines and of branches that ran."""
    found = {}
    for name, done, of in (
        ("lines", "covered_lines", "num_statements"),
        ("branches", "covered_branches", "num_branches"),
    ):
        found[name] = 100.0 * totals[done] / max(1, totals[of])
    return found


def main() -> None:
    floor = float(sys.argv[1])
    found = shares(json.load(sys.stdin)["totals"])
    told = [f"{name} {share:.1f}%" for name, share in found.items()]
    print(f"{', '.join(told)} (floor {floor:g}%)")
    if min(found.values()) < floor:
        raise SystemExit(f"coverage is below {floor:g}%: test what `coverage report` lists above.")


if __name__ == "__main__":
    main()
