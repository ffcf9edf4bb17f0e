"""`profile_generation`: write some tokens with the core's scopes recorded, and account for the time
of a token and of the prompt.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima._machine import threads_in_use
from omnima.benchmarking.choices import check_activations, check_cache, check_formats
from omnima.benchmarking.formats import open_in
from omnima.benchmarking.limits import describe_machine, measure_reading
from omnima.benchmarking.rounds import check_threads, measured_limits
from omnima.benchmarking.shapes import shape_of
from omnima.benchmarking.timing import timed_apart
from omnima.benchmarking.work import Work, work_of
from omnima.benchmarking.worker import peak_memory
from omnima.errors import ConfigError
from omnima.profiling.memory import forget_peak, resident_memory
from omnima.profiling.parts import bytes_of, part_rows, seconds_of
from omnima.profiling.trace import check_trace_path, write_trace

_CACHE_TILE = 16  # a rounded value is stored in whole vectors of so many numbers


def profile_generation(
    model: str | Path | None = None,
    *,
    format: str = "f32",
    activations: str = "float32",
    cache_precision: str = "fp32",
    preset: str | None = None,
    params: int | None = None,
    vocab_size: int | None = None,
    context: int | None = None,
    sequences: int | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    threads: int | None = None,
    trace: str | Path | None = None,
) -> dict[str, Any]:
    """Say where the time of a written token and of the prompt goes on this machine.

    The prompt is random ids, and the likeliest token is taken always.

    Parameters
    ----------
    model
        A directory, a GGUF file or a name on the Hugging Face hub.
    format
        Of its weights, as for :func:`omnima.benchmarking.benchmark_generation`.
    activations
        What matrices are multiplied with: "float32"; "int8" where the format is int8 or int4, or
        "bf16" where it is bf16.
    cache_precision
        Of keys and values: "fp32", "bf16" or "int8".
    preset, params, vocab_size, context
        In place of a model: a shape with random weights, as for :func:`omnima.benchmark`.
    sequences, prompt_tokens, new_tokens
        1, 64 and 128 when they are not given and the context holds so many.
    threads
        None: as many as this process may use.
    trace
        Also write a trace there: .json or .json.gz.

    Returns
    -------
    dict
        `operators` (rows by part and phase: "token" by step of all sequences, "prompt" by prompt;
        with calls, ms, share of the phase, rates and share of the roofline), `prompt_ms`,
        `token_ms` with the recording and `plain_token_ms` without, `bytes_per_token` (weights, keys
        and values that a step reads), `gb_per_s`, `share_of_read_bandwidth` (by the measured rate
        of reading so many bytes over and over), `memory`, `shape` and `machine`.

    Raises
    ------
    ConfigError
        For both a model and a shape, sizes that do not fit, an unknown format, or a trace that
        cannot be written.

    Examples
    --------
    >>> found = profile_generation(preset="nima", vocab_size=64, prompt_tokens=4, new_tokens=4)
    >>> {"products", "attention", "sampling"} <= {row["operator"] for row in found["operators"]}
    True
    """
    shape = {"preset": preset, "params": params, "vocab_size": vocab_size, "context": context}
    format = _one_format(format)
    _check_shape(model, shape)
    threads = check_threads(threads)
    path = None if trace is None else check_trace_path(trace)
    before = resident_memory()
    forget_peak()
    made, name, weight_bytes = _model_of(model, format, check_activations(activations), shape)
    work = work_of("decode", name, made.config, sequences, prompt_tokens, new_tokens)
    run = _record(made, work, threads, check_cache(cache_precision))
    peak = max(before, peak_memory())
    moved = bytes_of(run.spans, "token")
    limits = measured_limits(threads)
    reading = measure_reading(threads, [round(moved)])[0]
    rows = part_rows(run.spans, limits, format, reading)
    if path is not None:
        write_trace(path, run.spans, f"omnima generate {work.name} {format}", "generate")
    rate = moved / run.plain_token / 1e9
    return {
        "task": "generate",
        "shape": work.as_dict(),
        "precision": format,
        "prompt_ms": 1e3 * seconds_of(run.spans, "prompt"),
        "token_ms": 1e3 * seconds_of(run.spans, "token"),
        "plain_token_ms": 1e3 * run.plain_token,
        "tokens_per_s": work.sequences / run.plain_token,
        "bytes_per_token": moved,
        "gb_per_s": rate,
        "read_limit_gb_per_s": reading,
        "share_of_read_bandwidth": rate / reading,
        "operators": [dataclasses.asdict(row) for row in rows],
        "memory": {
            "weights": weight_bytes,
            "keys_and_values": _cache_bytes(made.config, work, cache_precision),
            "process": before,
            "peak": peak,
        },
        "trace": None if path is None else str(path),
        "machine": describe_machine(threads, limits),
    }


def _one_format(given: str) -> str:
    names = check_formats(given)
    if len(names) != 1:
        raise ConfigError(f'A profile is of one format, not "{given}".')
    return names[0]


def _check_shape(model: str | Path | None, shape: dict[str, Any]) -> None:
    given = [key for key, value in shape.items() if value is not None]
    if model is not None and given:
        raise ConfigError(f"The model has a shape of its own: drop {given[0]}.")


def _model_of(
    model: str | Path | None, format: str, activations: str, shape: dict[str, Any]
) -> tuple[Any, str, int]:
    """The model, its name and the bytes of its weights."""
    if model is not None:
        made, size = open_in(str(model), format, activations=activations)
        return made, Path(model).name, size
    from omnima.model import Model

    if format != "f32":
        raise ConfigError(f"Random weights are f32: give a model to profile {format}.")
    found = shape_of(**shape)
    return Model.from_config(found.model), found.name, 4 * _parameters(found.model)


def _parameters(fields: dict[str, Any]) -> int:
    from omnima.config import ModelConfig

    return int(ModelConfig.from_dict(fields).num_parameters)


def _cache_bytes(config: Any, work: Work, precision: str) -> int:
    heads = config.num_hidden_layers * config.num_key_value_heads
    values = config.head_dim
    if precision != "fp32":
        values = -(-values // _CACHE_TILE) * _CACHE_TILE
    number = {"fp32": 4, "bf16": 2, "int8": 1}[precision]
    scales = 2 * 4 if precision == "int8" else 0
    token = heads * (number * (config.head_dim + values) + scales)
    return int(token * work.sequences * (work.prompt_tokens + work.new_tokens))


@dataclasses.dataclass
class _Recording:
    spans: Sequence[Any]
    plain_token: float  # seconds of a step of all sequences, without the recording


def _record(model: Any, work: Work, threads: int, cache_precision: str) -> _Recording:
    from omnima import _core, generation

    prompts = work.prompts()

    def write(count: int) -> float:
        start = time.perf_counter()
        generation.generate(
            model,
            None,
            prompts,
            max_new_tokens=count,
            temperature=0.0,
            cache_precision=cache_precision,
        )
        return time.perf_counter() - start

    with threads_in_use(threads):
        write(2)
        _, plain = timed_apart(write, work.new_tokens)
        _core.start_recording()
        try:
            write(work.new_tokens)
        finally:
            spans = _core.stop_recording()
    return _Recording(spans, plain / (work.new_tokens - 1))
