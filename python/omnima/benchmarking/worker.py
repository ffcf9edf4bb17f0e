"""The process of one measured system: `python -m omnima.benchmarking.worker`.

It reads one JSON request a line and answers each with one line. A job builds the system and takes
its first step; a turn then times steps; the end tells the peak of memory. A copy of a model for
another tool is made by a process of its own, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def peak_memory(status: Path = Path("/proc/self/status")) -> int:
    """Return the highest resident memory of this process in bytes.

    Not getrusage's: a child inherits the peak of the process that made it.
    """
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """Answers the requests of the process that measures."""

    def __init__(self) -> None:
        self._work: Callable[[], object] = lambda: None
        self._prepare: Callable[[], object] = lambda: None
        # A step's own way to time itself: its seconds, of which others may lie between.
        self._timed: Callable[[], float] | None = None
        self._facts: Callable[[], dict[str, Any]] = dict

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says.

        It says "job", "limits", "reading", "copy", "quantize", "perplexity", "turn" or "end".
        """
        kind = request["do"]
        if kind == "job":
            return self._start(request)
        if kind == "limits":
            from omnima.benchmarking.limits import measure_limits

            return dict(measure_limits(request["threads"]))
        if kind == "reading":
            from omnima.benchmarking.limits import measure_reading

            return {"gb_per_s": measure_reading(request["threads"], request["sizes"])}
        if kind == "copy":
            from omnima.benchmarking.copies import make_copy

            make_copy(request["model"], request["kind"], request["to"], request["base"])
            return {}
        if kind == "quantize":
            from omnima.benchmarking.systems import module_of

            return dict(module_of("quantize", request["system"]).quantize(request))
        if kind == "perplexity":
            from omnima.benchmarking.systems.omnima_quantizer import measured

            return {"perplexity": measured(request)}
        if kind == "turn":
            return {"seconds": self._turn(request["seconds"])}
        return {"peak_memory_bytes": peak_memory(), **self._facts()}

    def _start(self, job: dict[str, Any]) -> dict[str, Any]:
        makers = {"tokenize": self._tokenizer}
        makers |= dict.fromkeys(("train", "evaluate", "lora", "sft", "dpo"), self._trainer)
        told = makers.get(job["task"], self._writer)(job)
        start = time.perf_counter()
        self._prepare()
        first = self._work()
        told["first_step_seconds"] = time.perf_counter() - start
        if job["task"] == "tokenize":
            told["tokens"] = first
        self._once()  # the second one: buffers and caches have their final size
        return told

    def _trainer(self, job: dict[str, Any]) -> dict[str, Any]:
        import torch

        from omnima.benchmarking.systems import module_of

        torch.set_num_threads(job["threads"])
        step, parameters = module_of(job["task"], job["system"]).build(job)
        model, rows = job["shape"]["model"], job["shape"]["batch_size"]
        time = model["max_position_embeddings"]
        task = job["task"]
        size = (2 * rows if task == "dpo" else rows, time + 1)
        generator = torch.Generator().manual_seed(job["seed"])
        batch: list[Any] = []

        def prepare() -> None:
            ids = torch.randint(model["vocab_size"], size, generator=generator)
            asked = time // 2 if task in ("sft", "dpo") else 0  # of each row; the rest is answered
            if task == "dpo":
                ids[1::2, :asked] = ids[::2, :asked]
            batch[:] = ids[:, :-1].contiguous(), ids[:, 1:].clone()
            if asked:
                batch[1][:, : asked - 1] = -100

        self._prepare, self._work = prepare, lambda: step(*batch)
        return {"parameters": parameters}

    def _tokenizer(self, job: dict[str, Any]) -> dict[str, Any]:
        from omnima.benchmarking.systems import module_of

        with open(job["documents"], encoding="utf-8") as file:
            documents = [json.loads(line) for line in file]
        self._work = module_of(job["task"], job["system"]).build(job, documents)
        return {}

    def _writer(self, job: dict[str, Any]) -> dict[str, Any]:
        from omnima.benchmarking.systems import module_of
        from omnima.benchmarking.timing import Timing

        write, told = module_of(job["task"], job["system"]).build(job)
        timing = Timing(write, job["task"], job["prompts"], job["new_tokens"])
        self._work, self._timed, self._facts = timing.work, timing.once, timing.facts
        return dict(told)

    def _once(self) -> float:
        if self._timed is not None:
            return self._timed()
        self._prepare()
        start = time.perf_counter()
        self._work()
        return time.perf_counter() - start

    def _turn(self, budget: float) -> list[float]:
        taken: list[float] = []
        spent: list[float] = []
        while not taken or sum(spent) + spent[-1] / 2 < budget:
            start = time.perf_counter()
            seconds = self._once()
            lasted = time.perf_counter() - start
            if not spent and lasted < budget / 3:
                # The caches are still others': counted only where steps are long.
                spent.append(0.0)
                continue
            taken.append(seconds)
            spent.append(lasted)
        return taken


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until they end. What fails is told, and ends the process."""
    worker = Worker()
    for line in requests:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # any failure of any system: the one who measures names it
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {reason}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            return


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
