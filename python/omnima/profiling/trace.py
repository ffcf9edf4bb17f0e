"""Spans as a trace in the Trace Event Format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError
from omnima.profiling.operators import Span, named


def check_trace_path(path: str | Path) -> Path:
    """Return the path of a trace that can be written.

    Raises
    ------
    ConfigError
        When it does not end in .json or .json.gz, or its directory does not exist.
    """
    path = Path(path)
    if not path.name.endswith((".json", ".json.gz")):
        raise ConfigError(f"The trace {path} must end in .json or .json.gz.")
    if not path.parent.is_dir():
        raise ConfigError(
            f"The trace {path} cannot be written: there is no directory {path.parent}."
        )
    return path


def write_trace(
    path: str | Path, spans: Sequence[Span], title: str = "omnima", category: str | None = None
) -> Path:
    """Write spans as a trace; gzipped when the path ends in .gz.

    Each belongs to the category, or to the phase of a training step that its name tells.
    """
    path = check_trace_path(path)
    events: list[dict[str, Any]] = [_label("process_name", 0, title)]
    for thread in sorted({each.thread for each in spans}):
        events.append(_label("thread_name", thread, f"thread {thread}"))
    for each in spans:
        arguments: dict[str, float] = {"threads side by side": each.team}
        if each.flops:
            arguments["GFLOP"] = each.flops / 1e9
        if each.bytes:
            arguments["MB"] = each.bytes / 1e6
        events.append(
            {
                "name": each.name,
                "cat": category or named(each.name)[1],
                "ph": "X",
                "pid": 1,
                "tid": each.thread,
                "ts": each.begin / 1e3,
                "dur": (each.end - each.begin) / 1e3,
                "args": arguments,
            }
        )
    content = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _label(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}
