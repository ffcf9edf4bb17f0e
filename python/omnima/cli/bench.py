"""`omnima bench`: Omnima beside its peers on this machine."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.model_options import ACTIVATIONS, CACHE, MODEL
from omnima.cli.output import Json, print_json
from omnima.cli.shape_options import Markdown, given, refuse, with_shape
from omnima.errors import ConfigError

_PEERS = (
    "the systems beside ours, with commas: torch-eager, torch-compile, transformers, litgpt "
    "(tokenize: sentencepiece, tokenizers; lora: peft; sft: peft, trl; dpo: trl; prefill, decode, "
    "batch: transformers, llama.cpp, ctranslate2; quantize: llama.cpp); none; all that are "
    "installed when not given"
)


@with_shape
def bench(
    task: str = typer.Argument(
        ...,
        metavar="TASK",
        help="train, lora, sft, dpo, evaluate, tokenize, prefill, decode, batch or quantize",
    ),
    model: str | None = typer.Option(
        None, help="lora, sft, dpo, prefill, decode, batch, quantize: " + MODEL
    ),
    format: str | None = typer.Option(
        None,
        help="of the model's weights: f32, bf16, int8, int4, or several; f32 by default "
        "(quantize: int8, int4, nf4; int8,int4 by default)",
    ),
    activations: str | None = typer.Option(None, help="ours: " + ACTIVATIONS),
    cache_precision: str | None = typer.Option(None, help="ours, " + CACHE),
    sequences: int | None = typer.Option(None, help="written together; batch: 16, else 1"),
    prompt_tokens: int | None = typer.Option(None, help="prefill: 512, else 64"),
    new_tokens: int | None = typer.Option(None, help="tokens to write; decode: 128, batch: 64"),
    cache: str | None = typer.Option(
        None, help="keep the peers' copies of the model in this directory"
    ),
    method: str | None = typer.Option(
        None,
        help="quantize: rtn, gptq, awq, or several; rtn for int8, all for four bits; "
        "lora, sft, dpo: lora, qlora, dora or any other adapter; sft, dpo: or full",
    ),
    rank: int | None = typer.Option(None, help="lora, sft, dpo: of the adapter; LoRA: 16"),
    group_size: int | None = typer.Option(None, help="quantize: numbers that share a scale"),
    precision: str | None = typer.Option(None, help="bf16, fp32, or both; both by default"),
    peers: str | None = typer.Option(None, help=_PEERS),
    threads: int | None = typer.Option(None, help="threads of every system; all cores by default"),
    rounds: int | None = typer.Option(None, help="turns that each system takes; 3 by default"),
    seconds: float | None = typer.Option(
        None, help="length of a turn, 2 by default; one step at least"
    ),
    data: str | None = typer.Option(None, help="tokenize, quantize: the text; pystdlib by default"),
    kind: str | None = typer.Option(None, help="tokenize: bpe (the default) or unigram"),
    gate: str | None = typer.Option(None, help="a JSON file of ratios that must be reached"),
    markdown: Markdown = False,
    json: Json = False,
    **shape: Any,
) -> None:
    """Measure training, evaluation, tokenization, writing, quantizing beside PyTorch, …"""
    from omnima.benchmarking import check_gate, read_gate, tables
    from omnima.cli.output import print_table

    if task == "quantize":
        refuse("bench", task, {"gate": gate})
    rules = read_gate(gate) if gate is not None else []
    report = _measure(
        task,
        shape={**shape, "precision": precision, "kind": kind},
        model={"model": model, "format": format, "cache": cache},
        writing={
            "activations": activations,
            "cache_precision": cache_precision,
            "sequences": sequences,
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
        },
        quantizing={"group_size": group_size},
        method={"method": method},
        adapting={"rank": rank},
        turns={"rounds": rounds, "seconds": seconds},
        texts={"data": data},
        common={
            "peers": peers,
            "threads": threads,
            "say": lambda line: typer.echo(line, err=True),
        },
    )
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


def _measure(task: str, common: dict[str, Any], **flags: dict[str, Any]) -> dict[str, Any]:
    """Call the benchmark of a task with its flags, and refuse those of others."""
    from omnima.benchmarking import (
        benchmark,
        benchmark_adapter,
        benchmark_generation,
        benchmark_quantize,
    )
    from omnima.benchmarking.systems import TUNING, WRITING

    if task in WRITING:
        mine: tuple[str, ...] = ("model", "writing", "turns")
    elif task == "quantize":
        mine = ("model", "quantizing", "method", "texts")
    elif task in TUNING:
        mine = ("shape", "model", "method", "adapting", "turns")
    elif task in ("train", "evaluate", "tokenize"):
        mine = ("shape", "texts", "turns")
    else:
        return benchmark(task, **common)  # which refuses it
    chosen: dict[str, Any] = {}
    for kind, values in flags.items():
        if kind in mine:
            chosen |= given(values)
        else:
            refuse("bench", task, values)
    if "model" in mine and "model" not in chosen:
        raise ConfigError(f"bench {task} measures a model: give --model, {MODEL}.")
    if task in TUNING:
        _refuse_shape(task, chosen)
        return benchmark_adapter(task=task, **chosen, **common)
    if task == "quantize":
        return benchmark_quantize(**chosen, **common)
    if task in WRITING:
        return benchmark_generation(task, **chosen, **common)
    return benchmark(task, **chosen, **common)


def _refuse_shape(task: str, chosen: dict[str, Any]) -> None:
    """Refuse what makes a shape up: an adapter is a real model's."""
    made_up = ("preset", "params", "vocab_size", "kind", "format")
    refuse("bench", task, {name: chosen.pop(name, None) for name in made_up})
