"""`benchmark_adapter`: training a model on, beside PEFT and TRL, from the same weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima import adapters
from omnima.benchmarking.bench import _Steps
from omnima.benchmarking.choices import PRECISIONS, check_peers, check_precisions
from omnima.benchmarking.copies import Copies
from omnima.benchmarking.process import SystemFailed
from omnima.benchmarking.rounds import OURS, Measured, Say, Turns
from omnima.benchmarking.shapes import Shape
from omnima.benchmarking.systems import TUNING
from omnima.errors import ConfigError

_CONTEXT, _ROWS, _RANK = 512, 4, 16
#: With qlora, LoRA beside a model in NF4, PEFT trains the LoRA beside numbers.
METHODS = (*adapters.METHODS, "qlora")


def benchmark_adapter(
    model: str | Path,
    *,
    task: str = "lora",
    method: str = "lora",
    rank: int | None = None,
    context: int | None = None,
    batch_size: int = _ROWS,
    precision: str | Sequence[str] = PRECISIONS,
    peers: str | Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 2.0,
    cache: str | Path | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure steps that train an adapter of every linear layer of a model, or the model.

    A step is forward, backward, clipping and AdamW on random ids; every system has a process of its
    own and takes turns as in :func:`omnima.benchmark`.

    Parameters
    ----------
    model
        A directory, a GGUF file or a name on the Hugging Face hub.
    task
        "lora": every token is learned. "sft": the second half of each row is. "dpo": pairs of rows
        with the same first half, whose second halves are the answers; the reference is part of the
        step.
    method
        A kind of :data:`omnima.adapters.METHODS` or "qlora" (the model in NF4; PEFT's beside it is
        lora); sft and dpo: also "full". PEFT has no bottleneck and no bitfit.
    rank
        Of the adapter: 16 of LoRA and its kin, which then count twice; None: as the kind has it.
    context, batch_size
        Tokens of a row (512, or the model's context where that is less) and rows of a batch, or
        pairs.
    precision
        "bf16" (PEFT: float32 weights under autocast), "fp32", or several.
    peers
        "peft", "trl" (sft, dpo) or both; None: all, "none": no other.
    threads, rounds, seconds
        As in :func:`omnima.benchmark`.
    cache
        A directory for the copy of a GGUF file that peers need; None: a temporary one.
    say
        Called with a line on what is going on.

    Returns
    -------
    dict
        As from :func:`omnima.benchmark`; a row has `trainable_parameters`, too.

    Raises
    ------
    ConfigError
        An unknown method, precision or peer, sizes that are not positive, no such model.

    Examples
    --------
    >>> found = benchmark_adapter("my-model", peers="none")  # doctest: +SKIP
    """
    methods = METHODS if task == "lora" else ("full", *METHODS)
    if method not in methods:
        raise ConfigError(f'method is "{method}"; the choices are {", ".join(methods)}.')
    options, in_front = _options(method, rank)
    for name, value in (("batch_size", batch_size), ("context", context or 1)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1.")
    systems = [OURS, *check_peers(_checked(task), peers)]
    precisions = check_precisions(precision)
    turns = Turns.of(rounds, seconds, threads, say)
    from omnima._places import find_model
    from omnima.benchmarking.generation import _config_of

    path = find_model(model).resolve()
    config = _config_of(path)
    longest = config.max_position_embeddings - in_front
    if context is not None and context > longest:
        raise ConfigError(f"context is {context}, but the model's context holds {longest} here.")
    fields = {**config.to_dict(), "max_position_embeddings": context or min(_CONTEXT, longest)}
    shape = Shape(path.stem if path.is_file() else path.name, fields, batch_size)
    about = {
        "seed": 0, "kind": method, "method": method, "options": options, "shape": shape.as_dict(),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        place = cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="omnima-bench-"))
        copies = Copies(path, Path(place)) if path.is_file() else None
        job = {"model": str(path), **about}
        jobs: list[tuple[str | None, dict[str, Any]]] = [
            (each, {**job, "precision": each}) for each in precisions
        ]
        return _Adapting(task, method, turns, shape, copies).run(systems, jobs)


def _options(method: str, rank: int | None) -> tuple[dict[str, Any], int]:
    """What `add_adapter` is told beside the method, and how many virtual tokens it then has.

    Raises
    ------
    ConfigError
        For a rank that the method cannot have.
    """
    if method == "full":
        return {}, 0
    plain = "lora" if method == "qlora" else method
    kin = adapters.METHODS[plain]["kind"] in ("lora", "dora")
    rank = _RANK if kin and rank is None else rank
    options = {} if rank is None else {"rank": rank, **({"alpha": 2.0 * rank} if kin else {})}
    return options, adapters.AdapterOptions.of(plain, **options).virtual_tokens


def _checked(task: str) -> str:
    if task not in TUNING:
        raise ConfigError(f'task is "{task}"; the choices are {", ".join(TUNING)}.')
    return task


class _Adapting(_Steps):
    """Training steps of a model that is there already."""

    def __init__(
        self, task: str, method: str, turns: Turns, shape: Shape, copies: Copies | None
    ) -> None:
        super().__init__(task, turns, shape)
        self.method, self.copies = method, copies

    def memory(self) -> float:
        return self.rows_each * self.shape.memory("train")

    def flops(self) -> float:
        # An adapter's model has no gradients of its own weights. Of pairs the reference counts.
        passes = (3 if self.method == "full" else 2) + (self.task == "dpo")
        return self.rows_each * passes * self.shape.forward_flops

    @property
    def rows_each(self) -> int:
        """Rows that one of a batch takes."""
        return 2 if self.task == "dpo" else 1

    def able(self, system: str, precision: str | None) -> bool:
        if not super().able(system, precision):
            return False
        if system == OURS or self.copies is None:
            return True
        try:
            self.copies.get("hf")
        except SystemFailed as failed:
            self.skip(system, precision, f"its copy of the model cannot be made: {failed}")
            return False
        return True

    def job_of(self, system: str, precision: str | None, job: dict[str, Any]) -> dict[str, Any]:
        if system == OURS or self.copies is None:
            return {"system": system, **job}
        return {"system": system, **job, "model": str(self.copies.get("hf"))}

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        row = super().row(found, system, precision, ours)
        row["trainable_parameters"] = row.pop("parameters")
        row["tokens_per_s"] *= self.rows_each
        return row
