"""Draws what rounding does to a model's weights, as docs/explanation/quantization.md shows it.

    python tools/draw_quantization.py MODEL [--name NAME] [--matrix NAME] [--out DIRECTORY]

MODEL is what Model.from_pretrained reads. Writes quantization-weights.svg, one matrix and the
levels of one of its groups, and quantization-errors.svg, the error of every kind of matrix in every
format.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import torch

import omnima
from omnima import _core

OUT = Path(__file__).resolve().parents[1] / "docs" / "_static"
WIDTH = 860
LEFT, RIGHT = 130, 820  # the ends of the axis of weights
STYLE = """
    text { fill: #1d2733 }
    .small { font-size: 12px; fill: #3b4754 }
    .head { font-size: 15px; font-weight: bold }
    .axis { stroke: #44546a; stroke-width: 1 }
    .grid { stroke: #d9dee5; stroke-width: 1 }
    .bars { fill: #2f7d4f }
    .pale { fill: #8a97a6 }
    .number { stroke: #44546a; stroke-width: 1; fill: none }
    .round { stroke: #9aa5b1; stroke-width: 0.7; fill: none }
    .level { stroke: #2f7d4f; stroke-width: 2.5; fill: none }
"""
# Row: what it is called, and the end of its parameters' names.
KINDS = {
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "embedding": "embed_tokens.weight",
}
NORMAL = "normal numbers"
GROUP, BINS = 64, 81  # of the histogram's picture; with an odd number zeros share the middle bin
# Relative error, bits and weights; None where the group does not divide a row.
Cell = tuple[float, int, int] | None
# Column: the format, and the numbers of a group; 0: a scale a row.
COLUMNS = (("int8", 0), ("int8", 64), ("int4", 32), ("int4", 64), ("int4", 128), ("nf4", 64))


class Picture:
    """An SVG that grows by lines and texts, on white, so that it is read on a dark page as well."""

    def __init__(self, height: int, title: str, description: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'aria-labelledby="title desc" font-family="Helvetica, Arial, sans-serif" '
            'font-size="14">',
            f'  <title id="title">{escape(title)}</title>',
            f'  <desc id="desc">{escape(description)}</desc>',
            f"  <style>{STYLE}  </style>",
            f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        ]
        self.text(20, 28, title, "head")

    def text(
        self, x: float, y: float, text: str, kind: str = "small", anchor: str = "start"
    ) -> None:
        self.parts.append(
            f'  <text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def path(self, kind: str, lines: Iterable[Iterable[tuple[float, float]]]) -> None:
        """Lines from point to point."""
        drawn = ("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in line) for line in lines)
        self.parts.append(f'  <path class="{kind}" d="{"".join(drawn)}"/>')

    def write(self, path: Path) -> None:
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")
        print(f"{path}: {path.stat().st_size:,} bytes")


def format_of(to: str, group: int, inputs: int) -> str | None:
    """The format of a matrix with so many inputs; None where the group does not divide them."""
    group = group or inputs
    if inputs % group:
        return None
    return f"nf4_g{group}x{inputs // group}" if to == "nf4" else f"{to}_g{group}"


def rounded(format: str, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix after rounding, float32 [outputs, inputs], and its blocks."""
    blocks = _core.quantize_matrix("rtn", format, weight)
    return _core.dequantized(format, blocks, list(weight.shape)), blocks


def ticks(most: float, count: int) -> list[float]:
    """Round numbers from 0 to `most`, about so many."""
    power = 10.0 ** math.floor(math.log10(most / count))
    step = next(each * power for each in (1, 2, 5, 10) if each * power * count >= most)
    return [step * i for i in range(int(most / step + 1e-6) + 1)]


def typical_group(weight: torch.Tensor) -> tuple[int, int]:
    """Row and first column of the group whose two errors are nearest to the median of each."""
    squares = weight.unflatten(1, (-1, GROUP)).square().sum(2).clamp_min(1e-30)
    distance = torch.zeros_like(squares)
    for to in ("int4", "nf4"):
        made, _ = rounded(str(format_of(to, GROUP, weight.shape[1])), weight)
        error = ((made - weight).unflatten(1, (-1, GROUP)).square().sum(2) / squares).sqrt()
        distance += (error / error.median() - 1).abs()
    row, group = divmod(int(distance.argmin()), distance.shape[1])
    return row, group * GROUP


def levels_of(to: str, row: torch.Tensor, group: int) -> list[float]:
    """The 16 values that a number in a group of a row [1, inputs] may take."""
    format = str(format_of(to, GROUP, row.shape[1]))
    _, blocks = rounded(format, row)
    # A block, a group of int4 or a row of nf4, begins with its scales; then come two numbers a
    # byte: every level is written in.
    of_block = blocks.view(1 if to == "nf4" else row.shape[1] // GROUP, -1)
    bytes = row.shape[1] // 2 // of_block.shape[0]
    of_block[:, -bytes:] = (torch.arange(bytes) % 16 * 17).to(torch.uint8)
    values = _core.dequantized(format, blocks, list(row.shape))
    return values.view(-1, GROUP)[group].unique().tolist()


def draw_weights(name: str, matrix: str, weight: torch.Tensor, path: Path) -> None:
    """The histogram of a matrix, and under it how a typical group of it is rounded."""
    row, first = typical_group(weight)
    most = 4 * float(weight.std())
    outside = float((weight.abs() > most).float().mean())
    picture = Picture(
        496,
        f"The weights of a matrix, and the 16 levels of {GROUP} of them",
        f"A histogram of the {weight.numel():,} numbers of {matrix} of {name}. Under it, on the "
        f"same axis, the {GROUP} numbers of row {row} from column {first} on, and lines from each "
        "to the nearest of the 16 levels: those of int4 are evenly spaced, those of nf4 lie "
        "closest around 0.",
    )
    farthest = float(weight.abs().max())
    picture.text(20, 48, f"{matrix} of {name}")
    picture.text(
        RIGHT, 48, f"{outside:.2%} lie outside, the farthest at {farthest:.2f}", anchor="end"
    )
    draw_histogram(picture, weight, most, 80, 272)
    for top, to in ((304, "int4"), (380, "nf4")):
        draw_rounding(picture, to, weight[row : row + 1], first // GROUP, most, top)
    picture.path("axis", [[(LEFT, y), (RIGHT, y)] for y in (272, 446)])
    for value in sorted({sign * each + 0.0 for each in ticks(most, 4) for sign in (-1, 1)}):
        x = place(value, most)
        picture.path("axis", [[(x, y), (x, y + 5)] for y in (272, 446)])
        picture.text(x, 465, f"{value:g}".replace("-", "−"), anchor="middle")
    picture.text((LEFT + RIGHT) / 2, 484, "value of a weight", anchor="middle")
    picture.write(path)


def place(value: float, most: float) -> float:
    """Where a number lies on the axis from -most to most."""
    return LEFT + (value + most) / (2 * most) * (RIGHT - LEFT)


def draw_histogram(
    picture: Picture, weight: torch.Tensor, most: float, top: float, floor: float
) -> None:
    """The numbers from -most to most, in percent of all."""
    counts = torch.histc(weight, BINS, -most, most) / weight.numel() * 100
    tall = float(counts.max()) * 1.05
    for share in ticks(tall, 5):
        y = floor - share / tall * (floor - top)
        picture.path("grid", [[(LEFT, y), (RIGHT, y)]])
        picture.text(LEFT - 8, y + 4, f"{share:g}", anchor="end")
    picture.text(20, top + 4, "% of the")
    picture.text(20, top + 20, "numbers")
    outline: list[tuple[float, float]] = [(LEFT, floor)]
    for i, share in enumerate(counts.tolist()):
        y = floor - share / tall * (floor - top)
        outline += [(LEFT + (RIGHT - LEFT) * each / BINS, y) for each in (i, i + 1)]
    picture.path("bars", [[*outline, (RIGHT, floor)]])


def draw_rounding(
    picture: Picture, to: str, row: torch.Tensor, at: int, most: float, top: float
) -> None:
    """The numbers of a row's group, and lines from them to the levels that they become."""
    made, _ = rounded(str(format_of(to, GROUP, row.shape[1])), row)
    numbers, near = (each.view(-1, GROUP)[at] for each in (row, made))
    error = float((near - numbers).norm() / numbers.norm())
    pairs = [(place(a, most), place(b, most)) for a, b in zip(numbers.tolist(), near.tolist())]
    levels = [place(each, most) for each in levels_of(to, row, at)]
    picture.path("number", [[(x, top), (x, top + 14)] for x, _ in pairs])
    picture.path("round", [[(x, top + 14), (y, top + 38)] for x, y in pairs])
    picture.path("level", [[(x, top + 38), (x, top + 52)] for x in levels])
    picture.text(20, top + 12, f"{GROUP} numbers")
    picture.text(20, top + 50, f"{to}, {len(levels)} levels")
    picture.text(RIGHT, top + 12, f"error {error:.1%}", anchor="end")


def cell(weights: Iterable[torch.Tensor], to: str, group: int) -> Cell:
    """What rounding makes of all matrices of a kind."""
    wrong = squares = 0.0
    bits = numbers = 0
    for weight in weights:
        format = format_of(to, group, weight.shape[1])
        if format is None:
            return None
        made, blocks = rounded(format, weight)
        wrong += float((made - weight).double().square().sum())
        squares += float(weight.double().square().sum())
        bits += 8 * blocks.numel()
        numbers += weight.numel()
    return math.sqrt(wrong / squares), bits, numbers


def draw_errors(name: str, rows: Mapping[str, list[Cell]], path: Path) -> None:
    """A bar for each kind of matrix (down) in each format (across)."""
    left, panel, step, top = 122, 122, 23, 96
    base = top + step * len(rows)
    most = max(each[0] for row in rows.values() for each in row if each) * 100
    marks = ticks(most, 3)
    picture = Picture(
        base + 72,
        f"Error of the weights of {name} after rounding",
        "Relative errors in percent. "
        + " ".join(
            f"{to}, {f'groups of {group}' if group else 'a scale a row'}: "
            + ", ".join(f"{kind} {100 * row[at][0]:.1f}" for kind, row in rows.items() if row[at])
            + "."
            for at, (to, group) in enumerate(COLUMNS)
        ),
    )
    for at, (to, group) in enumerate(COLUMNS):
        x = left + panel * at
        scale = (panel - 46) / most
        cells = [row[at] for kind, row in rows.items() if row[at] and kind != NORMAL]
        bits = sum(each[1] for each in cells) / max(1, sum(each[2] for each in cells))
        picture.text(x, 58, f"{to}, {f'group {group}' if group else 'row'}", "")
        picture.text(x, 76, f"{round(bits, 3):g} bits a weight" if cells else "")
        picture.path("grid", [[(x + m * scale, top - 6), (x + m * scale, base)] for m in marks])
        for line, (kind, row) in enumerate(rows.items()):
            y = top + step * line
            if not row[at]:
                picture.text(x + 5, y + 12, "–")
                continue
            end = x + 100 * row[at][0] * scale
            bar = [(x, y), (end, y), (end, y + 15), (x, y + 15)]
            picture.path("pale" if kind == NORMAL else "bars", [bar])
            picture.text(end + 4, y + 12, f"{100 * row[at][0]:.1f}")
        picture.path("axis", [[(x, top - 6), (x, base)]])
        for mark in marks:
            picture.text(x + mark * scale, base + 16, f"{mark:g}", anchor="middle")
    for line, kind in enumerate(rows):
        picture.text(left - 10, top + step * line + 12, kind, anchor="end")
    picture.text(
        (left + WIDTH) / 2,
        base + 38,
        "‖rounded − W‖ / ‖W‖ in %, over the matrices of a kind in all blocks",
        anchor="middle",
    )
    picture.text(
        (left + WIDTH) / 2, base + 57, "–: the group does not divide a row", anchor="middle"
    )
    picture.write(path)


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a directory, a GGUF file or a name on the hub")
    parser.add_argument("--name", help="what the pictures call the model")
    parser.add_argument(
        "--matrix", default="model.embed_tokens.weight", help="the parameter of the histogram"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    name = given.name or Path(given.model).stem
    model = omnima.Model.from_pretrained(given.model)
    weights = {each: weight.detach() for each, weight in model.named_parameters()}
    weight = weights.get(given.matrix)
    if weight is None:
        parser.error(f"{given.matrix} is no parameter of this model; it has {', '.join(weights)}")
    if weight.dim() != 2 or weight.shape[1] % GROUP:
        parser.error(f"{given.matrix} has no rows of whole groups of {GROUP} numbers")
    draw_weights(name, given.matrix, weight, given.out / "quantization-weights.svg")
    rows = {}
    for kind, ending in KINDS.items():
        found = [weight for each, weight in weights.items() if each.endswith("." + ending)]
        if found:
            rows[kind] = [cell(found, *column) for column in COLUMNS]
    # What the formats do to numbers that no file has rounded before, for comparison.
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1024, model.config.intermediate_size, generator=generator)
    rows[NORMAL] = [cell([normal], *column) for column in COLUMNS]
    draw_errors(name, rows, given.out / "quantization-errors.svg")


if __name__ == "__main__":
    main()
