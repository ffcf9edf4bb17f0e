"""The run's numbers on disk: one JSON object a line, flushed, so that a killed run loses nothing
it reported.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TextIO

from omnima._durable import write_durably


class Records:
    """Appends dicts to a JSON lines file.

    Parameters
    ----------
    path
        The file, made when absent.
    keep_until
        Lines of steps after this one are dropped first: a resumed run does them again.
    """

    def __init__(self, path: Path, keep_until: int | None = None) -> None:
        self.path = path
        self.history: list[dict[str, Any]] = []
        if keep_until is not None and path.exists():
            self.history = [each for each in read_records(path) if each["step"] <= keep_until]
        write_durably(path, "".join(map(_line, self.history)).encode("utf-8"))
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def add(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        self.history.append(record)
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file; adding after this is an error."""
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """Return the value with null for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSON lines file of records; a last line cut by a kill is left out.

    >>> import tempfile; p = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = p.write_text('{"step": 1}\\n{"st'); read_records(p)
    [{'step': 1}]
    """
    records = []
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # the write that a kill cut short: nothing after it was ever whole
        records.append(record)
    return records
