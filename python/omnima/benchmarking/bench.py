"""`benchmark`: systems beside each other, in turns, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnima.benchmarking.choices import PRECISIONS, check_peers, check_precisions
from omnima.benchmarking.rounds import OURS, Measured, Rounds, Say, Turns
from omnima.benchmarking.shapes import Shape, shape_of
from omnima.benchmarking.systems import WRITING
from omnima.benchmarking.texts import Corpus, corpus_of
from omnima.errors import ConfigError


def benchmark(
    task: str,
    *,
    preset: str | None = None,
    params: int | None = None,
    vocab_size: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
    precision: str | Sequence[str] = PRECISIONS,
    peers: str | Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 2.0,
    data: str = "pystdlib",
    kind: str = "bpe",
    say: Say | None = None,
) -> dict[str, Any]:
    """Measure Omnima and its peers on this machine.

    Every system has the same vocabulary, depth, width, context, batch and number of threads, and a
    process of its own, so that its peak of memory is its own. They take turns, in an order that is
    drawn anew each round; medians are reported.

    Parameters
    ----------
    task : {"train", "evaluate", "tokenize"}
        Whole training steps (forward, backward, clipping, AdamW), the loss alone, or text to ids.
    preset, params
        The model's size; `bench-13.9m` when neither is given.
    vocab_size, context, batch_size
        In place of the preset's.
    precision
        "bf16", "fp32", or several.
    peers
        Names of the systems beside ours; None: all that are known, "none": no other.
    threads
        Of every system; None: as many as this process may use.
    rounds, seconds
        How many turns each system takes and how long one lasts; a turn has one step at least.
    data, kind
        For tokenize: the text, as :func:`omnima.data.open_source` takes it, and the kind of model.
    say
        Called with a line on what is going on.

    Returns
    -------
    dict
        `task`, `shape`, `rows` (one a system and precision), `skipped` (systems that could not run,
        with the reason) and `machine`. `share_of_limit` is the achieved FLOP/s by those of a matrix
        product of that precision on this machine; `omnima_ratio` how many times as fast Omnima was
        in the same rounds.

    Raises
    ------
    ConfigError
        For an unknown task, peer, precision or preset, and for sizes that are not positive.

    Examples
    --------
    >>> found = benchmark("evaluate", preset="nima", vocab_size=64, context=16, batch_size=1,
    ...                   precision="fp32", peers="none", rounds=1, seconds=0.01)
    >>> [row["system"] for row in found["rows"]]
    ['omnima']
    """
    if task in WRITING:
        raise ConfigError(f"{task} measures a model: take benchmarking.benchmark_generation.")
    systems = [OURS, *check_peers(task, peers)]
    precisions = check_precisions(precision)
    turns = Turns.of(rounds, seconds, threads, say)
    jobs: list[tuple[str | None, dict[str, Any]]]
    if task == "tokenize":
        with corpus_of(data, kind, vocab_size, systems) as corpus:
            files = {"directory": str(corpus.directory), "documents": str(corpus.path)}
            jobs = [(None, {"seed": 0, "kind": kind, **files})]
            return _Tokenizing(task, turns, corpus).run(systems, jobs)
    shape = shape_of(preset, params, vocab_size=vocab_size, context=context, batch_size=batch_size)
    about = {"seed": 0, "kind": kind, "shape": shape.as_dict()}
    jobs = [(each, {"precision": each, **about}) for each in precisions]
    return _Steps(task, turns, shape).run(systems, jobs)


class _Steps(Rounds):
    """Training steps, or losses, of a shape."""

    def __init__(self, task: str, turns: Turns, shape: Shape) -> None:
        super().__init__(task, turns)
        self.shape = shape

    def memory(self) -> float:
        return self.shape.memory(self.task)

    def flops(self) -> float:
        """Operations of the products of a step."""
        return self.shape.flops(self.task)

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        return {
            **super().row(found, system, precision, ours),
            "tokens_per_s": self.shape.tokens / found.seconds,
            "gflops_per_s": self.flops() / found.seconds / 1e9,
            "parameters": found.told["parameters"],
        }

    def shape_facts(self) -> dict[str, Any]:
        return self.shape.as_dict()

    def finish(self, machine: dict[str, Any]) -> None:
        for row in self.rows:
            row["share_of_limit"] = row["gflops_per_s"] / machine[f"{row['precision']}_gflops"]


class _Tokenizing(Rounds):
    """Text to ids."""

    def __init__(self, task: str, turns: Turns, corpus: Corpus) -> None:
        super().__init__(task, turns)
        self.corpus = corpus

    def row(
        self, found: Measured, system: str, precision: str | None, ours: Measured
    ) -> dict[str, Any]:
        return {
            **super().row(found, system, precision, ours),
            "tokens_per_s": found.told["tokens"] / found.seconds,
            "mb_per_s": self.corpus.bytes / found.seconds / 1e6,
        }

    def shape_facts(self) -> dict[str, Any]:
        return self.corpus.as_dict()
