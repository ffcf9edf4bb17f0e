"""`benchmark_quantize`: what the methods make of a model, in size, perplexity, time and memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima.benchmarking.choices import check_peers, chosen
from omnima.benchmarking.copies import Copies
from omnima.benchmarking.limits import describe_machine
from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.benchmarking.rounds import OURS, Say, check_threads, measured_limits
from omnima.benchmarking.systems import missing
from omnima.config import ModelConfig
from omnima.quantization.plan import METHODS, TARGETS, plan

#: llama.cpp's types beside each of our formats: a number of 8, and those of about 4 bits.
PEER_TYPES = {"int8": ("q8_0",), "int4": ("q4_0", "q4_1", "q4_k_m")}
_COPY = "gguf-f32"


def benchmark_quantize(
    model: str | Path,
    *,
    format: str | Sequence[str] = "int8,int4",
    method: str | Sequence[str] | None = None,
    group_size: int | None = None,
    data: str | Path | None = None,
    peers: str | Sequence[str] | None = None,
    threads: int | None = None,
    cache: str | Path | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Quantize a model by every method, and by llama.cpp, and measure what is left of it.

    Each row is made once, in a process of its own. All perplexities are computed by our own float32
    code on the same ids: the last tenth of the text, which no method reads.

    Parameters
    ----------
    model
        A directory with a tokenizer, a GGUF file or a name on the Hugging Face hub.
    format
        "int8", "int4", "nf4", or several.
    method
        "rtn", "gptq", "awq", or several; None: rtn for int8, all for four bits.
    group_size
        As in :meth:`omnima.Model.quantize`.
    data
        The text; None: Python's standard library.
    peers
        "llama.cpp" or "none"; None: those that are installed.
    threads, cache, say
        As in :func:`omnima.benchmarking.benchmark_generation`.

    Returns
    -------
    dict
        `task`, `shape`, `rows`, `skipped` and `machine`. A row has `system`, `precision` (int8, …),
        `method`, `group_size`, `bits_per_weight` (of everything that is stored), `bytes`,
        `perplexity_before` (of the float32 model), `perplexity_after`, `change` (the share by which
        it grew), `seconds` (without measuring), `peak_memory_bytes` (of the whole process; ours
        measures the perplexity, too) and `absent`: why it was not made, else None.

    Raises
    ------
    ConfigError
        An unknown format, method, group or peer, or no such model.
    DataError
        A model without a tokenizer, or a text that is missing or too short.

    Examples
    --------
    >>> found = benchmark_quantize("my-model", data="notes.txt")  # doctest: +SKIP
    >>> found["rows"][0]["change"]  # doctest: +SKIP
    """
    formats = chosen(format, tuple(TARGETS), "format")
    methods = None if method is None else chosen(method, METHODS, "method")
    systems = [OURS, *check_peers("quantize", peers)]
    threads = check_threads(threads)
    from omnima._places import find_model

    path = find_model(model).resolve()
    config = _config_of(path)
    for each in formats:
        plan(config.to_dict(), each, None, group_size)  # refuses before anything is made
    with contextlib.ExitStack() as stack:
        place = cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="omnima-bench-"))
        run = _Run(path, Copies(path, Path(place)), config.num_parameters, say or (lambda _: None))
        run.read(None if data is None else str(data), threads)
        for each in formats:
            for name in methods or (("rtn",) if each == "int8" else METHODS):
                run.ours(each, name, group_size)
            if "llama.cpp" in systems:
                run.llama_cpp(each)
    return run.report(describe_machine(threads, measured_limits(threads)))


def _config_of(path: Path) -> ModelConfig:
    from omnima import hub

    stored = hub.open_gguf(path) if path.is_file() else hub.open_pretrained(path)
    return ModelConfig.from_dict(stored.config)


class _Run:
    """One call of `benchmark_quantize`: what was measured so far."""

    def __init__(self, path: Path, copies: Copies, parameters: int, say: Say) -> None:
        self.path, self.copies, self.parameters, self.say = path, copies, parameters, say
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []

    def read(self, data: str | None, threads: int) -> None:
        """Find the ids that measure; here, so that a text that is no good is refused."""
        from omnima import hub
        from omnima.quantization.text import rows_of

        context = _config_of(self.path).max_position_embeddings
        _, measured = rows_of(data, hub.open_tokenizer(self.path), context)
        self.job = {"model": str(self.path), "data": data, "threads": threads}
        self.ids = measured.tolist()
        self.before = self._perplexity(str(self.path))

    def ours(self, format: str, method: str, group_size: int | None) -> None:
        """A row of our own."""
        job = {"to": format, "method": method, "group_size": group_size}
        self._add(OURS, format, method, group_size, {**self.job, **job})

    def llama_cpp(self, format: str) -> None:
        """A row for each of llama.cpp's types."""
        system = "llama.cpp"
        reason = missing("quantize", system)
        if reason is not None:
            self._absent(system, format, None, None, reason)
            return
        if format not in PEER_TYPES:
            self._absent(system, format, None, None, f"{system} has no {format}")
            return
        try:
            self.say(f"{system}: its copy of the model ({_COPY})")
            copy = str(self.copies.get(_COPY))
        except SystemFailed as failed:
            reason = f"its copy of the model cannot be made: {failed}"
            self._absent(system, format, None, None, reason)
            return
        for kind in PEER_TYPES[format]:
            made = str(Path(copy).with_name(f"made-{kind}.gguf"))
            job = {"copy": copy, "to": made, "kind": kind}
            try:
                self._add(system, format, kind, None, {**self.job, **job})
            finally:
                Path(made).unlink(missing_ok=True)

    def _add(
        self,
        system: str,
        format: str,
        method: str,
        group_size: int | None,
        job: dict[str, Any],
    ) -> None:
        self.say(f"{system} {format} {method}")
        try:
            with WorkerProcess() as worker:
                told = worker.ask({"do": "quantize", "system": system, **job})
                told |= worker.ask({"do": "end"})
            after = told.get("perplexity_after")
            if after is None:
                after = self._perplexity(job["to"])
        except SystemFailed as failed:
            self._absent(system, format, method, group_size, str(failed))
            return
        self.rows.append(
            {
                "system": system,
                "precision": format,
                "method": method,
                "group_size": told.get("group_size"),
                "bits_per_weight": 8 * told["bytes"] / self.parameters,
                "bytes": told["bytes"],
                "perplexity_before": self.before,
                "perplexity_after": after,
                "change": after / self.before - 1,
                "seconds": told["seconds"],
                "peak_memory_bytes": told["peak_memory_bytes"],
                "absent": None,
            }
        )

    def _perplexity(self, model: str) -> float:
        job = {"model": model, "ids": self.ids, "threads": self.job["threads"]}
        with WorkerProcess() as worker:
            return float(worker.ask({"do": "perplexity", **job})["perplexity"])

    def _absent(
        self, system: str, format: str, method: str | None, group_size: int | None, reason: str
    ) -> None:
        known = dict.fromkeys(
            ("bits_per_weight", "bytes", "perplexity_before", "perplexity_after", "change",
             "seconds", "peak_memory_bytes")
        )  # fmt: skip
        of = {"system": system, "precision": format, "method": method, "group_size": group_size}
        self.rows.append({**of, **known, "absent": reason})
        self.skipped.append({"system": system, "precision": format, "reason": reason})
        self.say(f"skipped: {system} {format}: {reason}")

    def report(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Everything that was measured, beside the machine."""
        name = self.path.stem if self.path.is_file() else self.path.name
        shape = {
            "name": name,
            "parameters": self.parameters,
            "data": self.job["data"],
            "tokens": sum(map(len, self.ids)),
        }
        return {
            "task": "quantize",
            "shape": shape,
            "rows": self.rows,
            "skipped": self.skipped,
            "machine": machine,
        }
