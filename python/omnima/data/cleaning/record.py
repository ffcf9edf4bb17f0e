"""The record beside a cleaned file: what it was made of, how, and what each step did."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omnima.data.shards import read_json

SUFFIX = ".cleaning.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """What `clean` did.

    Attributes
    ----------
    path : Path
        The cleaned documents, as JSON lines.
    record : dict
        The record that stands beside them: recipe, its hash, sources, counts of every step.
    """

    path: Path
    record: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What each step did, in order."""
        return list(self.record["steps"])


def record_path(path: Path) -> Path:
    """Where the record of a cleaned file stands."""
    return path.with_name(path.name + SUFFIX)


def cleaned_record(path: Path, sha256: str) -> dict[str, Any] | None:
    """The record of a cleaned file, or None if it has none or was changed since."""
    record = read_json(record_path(path))
    return record if record is not None and record.get("sha256") == sha256 else None
