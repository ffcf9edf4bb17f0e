"""`omnima bench`: Omnima beside its peers on this machine."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.model_options import ACTIVATIONS, MODEL
from omnima.cli.output import print_json
from omnima.cli.shape_options import Json, Markdown, given, refuse, with_shape
from omnima.errors import ConfigError

_PEERS = (
    "the systems beside ours, with commas: torch-eager, torch-compile, transformers, litgpt "
    "(tokenize: sentencepiece, tokenizers; prefill, decode, batch: transformers, llama.cpp, "
    "ctranslate2); none; all that are installed when not given"
)


@with_shape
def bench(
    task: str = typer.Argument(
        ..., metavar="TASK", help="train, evaluate, tokenize, prefill, decode or batch"
    ),
    model: str | None = typer.Option(None, help="prefill, decode, batch: " + MODEL),
    format: str | None = typer.Option(
        None, help="of the model's weights: f32, bf16, int8, int4, or several; f32 by default"
    ),
    activations: str | None = typer.Option(None, help="int8, int4: " + ACTIVATIONS),
    sequences: int | None = typer.Option(None, help="written together; batch: 16, else 1"),
    prompt_tokens: int | None = typer.Option(None, help="prefill: 512, else 64"),
    new_tokens: int | None = typer.Option(None, help="tokens to write; decode: 128, batch: 64"),
    cache: str | None = typer.Option(
        None, help="keep the peers' copies of the model in this directory"
    ),
    precision: str | None = typer.Option(None, help="bf16, fp32, or both; both by default"),
    peers: str | None = typer.Option(None, help=_PEERS),
    threads: int | None = typer.Option(None, help="threads of every system; all cores by default"),
    rounds: int = typer.Option(3, help="turns that each system takes"),
    seconds: float = typer.Option(2.0, help="length of a turn; one step at least"),
    data: str | None = typer.Option(None, help="tokenize: the text; pystdlib by default"),
    kind: str | None = typer.Option(None, help="tokenize: bpe (the default) or unigram"),
    gate: str | None = typer.Option(None, help="a JSON file of ratios that must be reached"),
    markdown: Markdown = False,
    json: Json = False,
    **shape: Any,
) -> None:
    """Measure training, evaluation, tokenization or writing beside PyTorch, llama.cpp, …"""
    from omnima.benchmarking import benchmark, benchmark_generation, check_gate, read_gate, tables
    from omnima.benchmarking.systems import WRITING
    from omnima.cli.output import print_table

    rules = read_gate(gate) if gate is not None else []
    common: dict[str, Any] = {
        "peers": peers,
        "threads": threads,
        "rounds": rounds,
        "seconds": seconds,
        "say": lambda line: typer.echo(line, err=True),
    }
    writing = {
        "model": model,
        "format": format,
        "activations": activations,
        "sequences": sequences,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "cache": cache,
    }
    others = {**shape, "precision": precision, "data": data, "kind": kind}
    if task in WRITING:
        refuse("bench", task, others)
        if model is None:
            raise ConfigError(f"bench {task} measures a model: give --model, {MODEL}.")
        report = benchmark_generation(task, **given(writing), **common)
    else:
        if task in ("train", "evaluate", "tokenize"):
            refuse("bench", task, writing)
        report = benchmark(task, **given(others), **common)
    if json:
        print_json(report)
    elif markdown:
        typer.echo(tables.markdown(report), nl=False)
    else:
        print_table(tables.table(report))
    broken = check_gate(report, rules)
    for line in broken:
        typer.echo(f"gate: {line}", err=True)
    if broken:
        raise typer.Exit(1)
