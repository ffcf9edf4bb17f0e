"""Draws the curves of benchmarks/fine_tuning_curves.py, as docs/explanation/measurements.md shows
them.

    python tools/draw_fine_tuning.py LINES... [--out FILE]

LINES are files of what that benchmark printed, one a run: of sft, of dpo, or of both.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "omnima", "font.size": 10})

import matplotlib.pyplot as plt  # noqa: E402

OUT = Path(__file__).resolve().parents[1] / "docs" / "_static" / "fine-tuning.svg"
NAMES = {"omnima": "Omnima", "peft": "transformers + PEFT", "trl": "TRL + PEFT"}
COLOURS = {"omnima": "#2f7d4f", "peft": "#c0562b", "trl": "#c0562b"}
# Of a benchmark: the titles of its pictures, axes, and what stands on them.
PANELS = {
    "sft": [("Held-out loss", "minutes of training", "minutes", "held_out")],
    "dpo": [
        ("Loss of a step", "step", "step", "loss"),
        ("Accuracy of the rewards", "step", "step", "accuracy"),
    ],
}
SMOOTHED = 10  # steps of dpo whose mean is drawn: each has four pairs of its own


def read(paths: list[Path]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The points of each benchmark and system."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            point = json.loads(line)
            found[point["what"]][point["system"]].append(point)
    return found


def smoothed(values: list[float], count: int) -> list[float]:
    """The mean of each value and of those before it, `count` in all."""
    windows = (values[max(0, i + 1 - count) : i + 1] for i in range(len(values)))
    return [sum(each) / len(each) for each in windows]


def draw(found: dict[str, dict[str, list[dict[str, Any]]]], out: Path) -> None:
    """One picture beside the other."""
    panels = [(what, *panel) for what in PANELS if what in found for panel in PANELS[what]]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axis, (what, title, label, x, y) in zip(axes[0], panels, strict=True):
        for system, points in found[what].items():
            values = [float(each[y]) for each in points]
            if what == "dpo":
                values = smoothed(values, SMOOTHED)
            marker = "o" if what == "sft" else None
            axis.plot(
                [each[x] for each in points], values, marker=marker, markersize=4,
                color=COLOURS[system], label=NAMES[system],
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(label)
        axis.grid(color="#d9dee5")
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)
    print(f"{out}: {out.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    draw(read(arguments.lines), arguments.out)


if __name__ == "__main__":
    main()
