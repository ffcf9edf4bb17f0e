"""The regression gate: ratios between systems on one machine must not fall below a file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError

_KEYS = {"peer": str, "precision": str, "at_least": (int, float)}
_MORE = {"memory_at_most": (int, float), "task": str, "preset": str}


def read_gate(path: str | Path) -> list[dict[str, Any]]:
    """Read a gate: a JSON list of objects with `peer`, `precision` and `at_least`.

    `at_least` bounds Omnima's tokens a second by the peer's; `memory_at_most`, where it stands, the
    peak of memory in the same way. A rule may name the `task` and the `preset` that it is for.

    Raises
    ------
    ConfigError
        When the file cannot be read or an entry is not like that.
    """
    try:
        rules = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The gate {path} cannot be read: {error}") from error
    if not isinstance(rules, list):
        raise ConfigError(f"The gate {path} must be a JSON list of rules.")
    for number, rule in enumerate(rules, 1):
        known = {**_KEYS, **_MORE}
        good = isinstance(rule, dict) and _KEYS.keys() <= rule.keys() <= known.keys()
        if not good or any(not isinstance(rule[key], known[key]) for key in rule):  # type: ignore[arg-type]
            raise ConfigError(
                f"The gate {path}, rule {number}: expected peer and precision (text), at_least and "
                f"perhaps memory_at_most (numbers), task and preset (text), not {json.dumps(rule)}."
            )
    return rules


def check_gate(report: dict[str, Any], rules: list[dict[str, Any]]) -> list[str]:
    """Return a line for every rule that a report of :func:`benchmark` breaks.

    A rule for what was not measured (another preset, a peer that was skipped) says nothing.

    Examples
    --------
    >>> row = {"system": "torch-eager", "precision": "bf16", "omnima_ratio": 1.5,
    ...        "memory_ratio": 0.5}
    >>> report = {"task": "train", "shape": {"name": "1m"}, "rows": [row]}
    >>> check_gate(report, [{"peer": "torch-eager", "precision": "bf16", "at_least": 2}])
    ['bf16: 1.50 times torch-eager, but at least 2 is expected']
    """
    broken = []
    measured = {"task": report["task"], "preset": report["shape"].get("name")}
    for rule in rules:
        if any(rule.get(key, value) != value for key, value in measured.items()):
            continue
        for row in report["rows"]:
            if (row["system"], row["precision"]) != (rule["peer"], rule["precision"]):
                continue
            if row["omnima_ratio"] < rule["at_least"]:
                broken.append(
                    f"{rule['precision']}: {row['omnima_ratio']:.2f} times {rule['peer']}, but at "
                    f"least {rule['at_least']} is expected"
                )
            if row["memory_ratio"] > rule.get("memory_at_most", float("inf")):
                broken.append(
                    f"{rule['precision']}: {row['memory_ratio']:.2f} times the memory of "
                    f"{rule['peer']}, but at most {rule['memory_at_most']} is expected"
                )
    return broken
