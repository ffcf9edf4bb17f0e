"""`benchmark_generation`: reading prompts and writing on, beside other engines, from the same
weights.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima.benchmarking import formats
from omnima.benchmarking.choices import check_activations, check_cache, check_formats, check_peers
from omnima.benchmarking.copies import Copies
from omnima.benchmarking.formats import copy_of
from omnima.benchmarking.process import SystemFailed, WorkerProcess
from omnima.benchmarking.rounds import OURS, Measured, Rounds, Say, Turns
from omnima.benchmarking.systems import WRITING
from omnima.benchmarking.work import Work, work_of
from omnima.config import ModelConfig
from omnima.errors import ConfigError


def benchmark_generation(
    task: str,
    model: str | Path,
    *,
    format: str | Sequence[str] = "f32",
    activations: str = "float32",
    cache_precision: str = "fp32",
    sequences: int | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    peers: str | Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 2.0,
    cache: str | Path | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure how fast a model reads and writes, here and in other engines.

    All have the same weights, prompts (random ids), numbers of new tokens and threads, take the
    likeliest token always, and have a process of their own. They take turns as in
    :func:`omnima.benchmark`.

    Parameters
    ----------
    task : {"prefill", "decode", "batch"}
        Reading a prompt of 512 tokens up to the first new one; writing 128 tokens after a prompt of
        64; writing 64 tokens after each of 16 such prompts together.
    model
        A directory, a GGUF file or a name on the Hugging Face hub.
    format
        Of the weights: "f32", "bf16", "int8" or "int4", or several. In 8 and 4 bits we compute from
        the GGUF file of llama.cpp (Q8_0, Q4_0), other peers from their own nearest kind.
    activations
        What we multiply with: "float32"; "int8" where the format is int8 or int4; "bf16" where it
        is bf16.
    cache_precision
        Of our keys and values: "fp32", "bf16" or "int8".
    sequences, prompt_tokens, new_tokens
        In place of the task's. What is not given is made smaller where the model's context is too
        small for it.
    peers
        Of "transformers", "llama.cpp", "ctranslate2"; None: all, "none": no other.
    threads, rounds, seconds
        As in :func:`omnima.benchmark`.
    cache
        A directory for the peers' copies of the model, which stay there; None: a temporary one.
    say
        Called with a line on what is going on.

    Returns
    -------
    dict
        As from :func:`omnima.benchmark`. A row has further `format` (what the system computes
        from), `ms_per_token` (of one step of all sequences), `first_token_seconds`, `weight_bytes`,
        `read_gb_per_s` (the weights a token touches by its time), `same_tokens` (how many tokens
        from the first on are ours) and `absent`: why a peer was not measured, else None.
        `share_of_limit` is the least time that the products or the reading of the weights take at
        the measured rates, by the time it took.

    Raises
    ------
    ConfigError
        An unknown task, format, kind of activations or of cache, or peer, sizes that do not fit the
        context, no such model.

    Examples
    --------
    >>> found = benchmark_generation("decode", "my-model")  # doctest: +SKIP
    >>> found["rows"][0]["tokens_per_s"]  # doctest: +SKIP
    """
    if task not in WRITING:
        raise ConfigError(f'Unknown task "{task}"; the tasks are {", ".join(WRITING)}.')
    systems = [OURS, *check_peers(task, peers)]
    names = check_formats(format)
    turns = Turns.of(rounds, seconds, threads, say)
    from omnima._outputs import check_writable
    from omnima._places import find_model

    path = find_model(model).resolve()
    if cache is not None:
        check_writable(Path(cache))
    name = path.stem if path.is_file() else path.name
    work = work_of(task, name, _config_of(path), sequences, prompt_tokens, new_tokens)
    with contextlib.ExitStack() as stack:
        place = cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="omnima-bench-"))
        job = {"model": str(path), "prompts": work.prompts(), "new_tokens": work.new_tokens}
        job["activations"] = check_activations(activations)
        job["cache_precision"] = check_cache(cache_precision)
        jobs = [(each, {**job, "precision": each}) for each in names]
        return _Writing(work, Copies(path, Path(place)), turns).run(systems, jobs)


def _config_of(path: Path) -> ModelConfig:
    """The configuration of a model, without its weights."""
    from omnima import hub

    stored = hub.open_gguf(path) if path.is_file() else hub.open_pretrained(path)
    return ModelConfig.from_dict(stored.config)


class _Writing(Rounds):
    """Prompts that are read and written on from."""

    def __init__(self, work: Work, copies: Copies, turns: Turns) -> None:
        super().__init__(work.task, turns)
        self.work, self.copies = work, copies

    def memory(self) -> float | None:
        return 6e8 + 12.0 * self.work.parameters

    def measure(self, precision: str | None, systems: list[str], job: dict[str, Any]) -> None:
        super().measure(precision, systems, job)
        there = {row["system"] for row in self.rows if row["precision"] == precision}
        model = next(row for row in self.rows if row["system"] == OURS)
        for system in systems:
            if system not in there:
                row = dict.fromkeys(model) | {"system": system, "precision": precision}
                self.rows.append(row | {"absent": self._reason(system, precision)})

    def able(self, system: str, precision: str | None) -> bool:
        if system == OURS:
            return True
        if not super().able(system, precision):
            return False
        kind = copy_of(system, str(precision))
        if kind is None:
            self.skip(system, precision, f"{system} has no {precision} on a CPU")
            return False
        try:
            self.say(f"{system} {precision}: its copy of the model ({kind})")
            self.copies.get(kind)
        except SystemFailed as failed:
            self.skip(system, precision, f"its copy of the model cannot be made: {failed}")
            return False
        return True

    def job_of(self, system: str, precision: str | None, job: dict[str, Any]) -> dict[str, Any]:
        kind = (
            formats.OURS[str(precision)][0] if system == OURS else copy_of(system, str(precision))
        )
        if kind is None:
            return {"system": system, **job}
        return {"system": system, **job, "copy": str(self.copies.get(kind)), "copy_kind": kind}

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        work, told = self.work, found.told
        touched = work.touched(told["weight_bytes"])
        same = 0
        for mine, theirs in zip(ours.told["ids"], told["ids"], strict=False):
            if mine != theirs:
                break
            same += 1
        return {
            **super().row(found, system, precision, ours),
            "tokens_per_s": work.tokens / found.seconds,
            "format": told["format"],
            "ms_per_token": 1e3 * work.sequences * found.seconds / work.tokens,
            "first_token_seconds": told["first_token_seconds"],
            "gflops_per_s": work.flops / found.seconds / 1e9,
            "read_gb_per_s": touched * work.passes / found.seconds / 1e9,
            "weight_bytes": told["weight_bytes"],
            "parameters": work.parameters,
            "same_tokens": same,
            "absent": None,
        }

    def _reason(self, system: str, precision: str | None) -> str:
        reasons = [
            str(each["reason"])
            for each in self.skipped
            if each["system"] == system and each.get("precision", precision) == precision
        ]
        return reasons[-1]

    def shape_facts(self) -> dict[str, Any]:
        return self.work.as_dict()

    def finish(self, machine: dict[str, Any]) -> None:
        measured = [row for row in self.rows if row["absent"] is None]
        sizes = [self.work.touched(row["weight_bytes"]) for row in measured]
        asked = {"do": "reading", "threads": self.turns.threads, "sizes": sizes}
        with WorkerProcess() as worker:  # what fits into a cache is read faster
            rates = worker.ask(asked)["gb_per_s"]
        for row, size, rate in zip(measured, sizes, rates, strict=True):
            products = "fp32" if row["precision"] == "f32" else "bf16"
            computing = self.work.flops / machine[f"{products}_gflops"] / 1e9
            reading = size * self.work.passes / rate / 1e9
            row["read_limit_gb_per_s"] = rate
            row["share_of_limit"] = max(computing, reading) / row["seconds"]
        for row in self.rows:
            row.setdefault("read_limit_gb_per_s", None)
