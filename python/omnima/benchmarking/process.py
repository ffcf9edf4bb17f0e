"""The other end of a worker: starts its process, asks, and ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from omnima.errors import OmnimaError


class SystemFailed(OmnimaError):
    """A measured system that could not run, with the reason."""


class WorkerProcess:
    """A worker in a process of its own; a context manager that ends it."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "omnima.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(at_once=error is not None)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises
        ------
        SystemFailed
            When the worker could not do it, or has ended.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemFailed(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            hint = ": out of memory?" if code == -9 else ""
            return f"its process was ended by signal {-code}{hint}"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"its process left with {code}"]
        return lines[-1]

    def close(self, at_once: bool = False) -> None:
        """End the process: by the end of its requests, or at once."""
        if at_once:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # what was not yet sent is no longer wanted
                    continue
        self._process.wait()
        self._errors.close()
