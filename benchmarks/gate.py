"""The regression gate: Omnima's ratios to PyTorch eager on this machine against gate.json.

    python benchmarks/gate.py [PRESET ...]

Ratios, not times: a slow or busy machine slows both. What falls short is measured once more, and
fails when it does so again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omnima import benchmark
from omnima.benchmarking import check_gate, markdown, read_gate

GATE = Path(__file__).with_name("gate.json")


def broken_rules(preset: str, rules: list[dict[str, Any]]) -> list[str]:
    """Measure a preset beside the peers of its rules; return what falls short twice."""
    peers = sorted({rule["peer"] for rule in rules})
    broken: list[str] = []
    for rounds in (3, 7):
        report = benchmark("train", preset=preset, peers=peers, rounds=rounds, seconds=1.0)
        print(markdown(report), flush=True)
        broken = check_gate(report, rules)
        if not broken:
            break
    return [f"{preset} {line}" for line in broken]


def main() -> int:
    rules = read_gate(GATE)
    presets = sys.argv[1:] or list(dict.fromkeys(rule["preset"] for rule in rules))
    broken = []
    for preset in presets:
        broken += broken_rules(preset, [rule for rule in rules if rule["preset"] == preset])
    for line in broken:
        print(f"gate: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
