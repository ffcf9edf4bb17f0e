"""The report of a fine-tuning: held-out samples before and after it, as JSON, as a page and for the
terminal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.training.rundir import write_text

if TYPE_CHECKING:
    from rich.table import Table

JSON, PAGE = "report.json", "report.md"
_SHOWN = 120  # characters of a text at the terminal

_NAMES = {
    "loss": "loss",
    "perplexity": "perplexity",
    "reward_accuracy": "reward accuracy",
    "reward_margin": "reward margin",
    "ranking_accuracy": "ranking accuracy",
    "log_probability_margin": "log probability margin",
}
_UNITS = {
    "sft": "nats a supervised token",
    "lm": "nats a token",
    "distill": "divergence from the teacher, nats a supervised token",
    "kto": "a judged answer",
}
_MEANINGS = {
    "reward_accuracy": "Reward accuracy: the share of samples whose reward is on the side that "
    "people chose.",
    "reward_margin": "Reward margin: by how much, in the mean.",
    "ranking_accuracy": "Ranking accuracy: the share of pairs whose better answer has the higher "
    "mean log probability; the log probability margin says by how much, in nats a token.",
}


def report_of(
    recipe: Mapping[str, Any],
    summary: Mapping[str, Any],
    held_out_samples: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the facts of a report.

    Parameters
    ----------
    recipe
        The run's: ``objective``, ``method``, ``model`` and ``answer_tokens`` are read.
    summary
        The run's.
    held_out_samples
        How many there are.
    before, after
        The figures of each moment, and ``answers``: of each sample ``prompt``, ``reference`` and
        the model's ``answer``.
    """
    of_run = ("steps", "tokens", "supervised_tokens", "seconds", "parameters")
    answered = zip(before.get("answers") or (), after.get("answers") or ())
    return {
        **{name: recipe[name] for name in ("objective", "method", "model")},
        **{name: summary[name] for name in (*of_run, "trainable_parameters")},
        "held_out_samples": held_out_samples,
        "before": _figures(before),
        "after": _figures(after),
        "answer_tokens": recipe["answer_tokens"],
        "answers": [
            {
                "prompt": old["prompt"],
                "reference": old["reference"],
                "before": old["answer"],
                "after": new["answer"],
            }
            for old, new in answered
        ],
    }


def _figures(moment: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures alone; null for those that JSON lacks, as an infinite perplexity is."""
    figures = {name: moment[name] for name in _NAMES if name in moment}
    return {
        name: each if each is not None and math.isfinite(each) else None
        for name, each in figures.items()
    }


def write_report(report: Mapping[str, Any], directory: Path) -> None:
    """Write a report into a run's directory, as JSON and as a page of Markdown."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(directory / JSON, text + "\n")
    write_text(directory / PAGE, page_of(report))


def page_of(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown."""
    base = f" of `{report['model']}`" if report["model"] else ""
    parts = [
        f"# Fine-tuning report\n\nObjective {report['objective']}{base}, method "
        f"{report['method']}: {report['trainable_parameters']:,} parameters learned in "
        f"{report['steps']:,} steps and {report['seconds']:,.0f} seconds from "
        f"{report['supervised_tokens']:,} of {report['tokens']:,} tokens.\n\n## Held-out samples\n"
    ]
    if not report["held_out_samples"]:
        return "\n".join([*parts, "There are none: nothing was measured.\n"])
    lines = ["| | before | after |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {old} | {new} |" for name, old, new in _rows(report)]
    said = [text for name, text in _MEANINGS.items() if name in report["after"]]
    parts += [
        f"{report['held_out_samples']:,} were not learned from.\n",
        "\n".join(lines) + "\n",
        *([" ".join(said) + "\n"] if said else []),
    ]
    if report["answers"]:
        parts.append(
            f"## Answers\n\nThe likeliest tokens, at most {report['answer_tokens']}, for "
            "held-out samples.\n"
        )
    for number, each in enumerate(report["answers"], start=1):
        parts.append(f"### {number}\n")
        for name in ("prompt", "reference", "before", "after"):
            parts.append(f"{name.capitalize()}:\n\n{_fenced(each[name])}\n")
    return "\n".join(parts)


def _fenced(text: str) -> str:
    """A block that nothing in the text can end."""
    longest = max((len(each) for each in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each figure with its name, as texts."""
    unit = _UNITS.get(report["objective"], "a pair")
    names = {**_NAMES, "loss": f"loss ({unit})"}
    before, after = report["before"], report["after"]
    return [
        (names[name], _said(name, before.get(name)), _said(name, after[name])) for name in after
    ]


def _said(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("accuracy"):
        return f"{value:.1%}"
    return f"{value:,.2f}" if name == "perplexity" else f"{value:.4f}"


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """Return a report as short tables for the terminal; none where nothing was held out."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    if not report["held_out_samples"]:
        return []
    figures = Table("held-out samples", box=SIMPLE)
    for name in ("before", "after"):
        figures.add_column(name, justify="right")
    for row in _rows(report):
        figures.add_row(*row)
    answers = Table("prompt", "reference", "before", "after", box=SIMPLE, show_lines=True)
    for each in report["answers"]:
        asked = " ".join(each["prompt"].split())
        texts = (" ".join(each[name].split()) for name in ("reference", "before", "after"))
        cells = ["…" + asked[-_SHOWN:] if len(asked) > _SHOWN else asked]
        cells += [text[:_SHOWN] + "…" if len(text) > _SHOWN else text for text in texts]
        answers.add_row(*(Text(cell) for cell in cells))  # no markup of theirs
    return [figures, answers] if report["answers"] else [figures]
