"""`omnima bench`: Omnima beside its peers on this machine."""

from __future__ import annotations

from typing import Any

import typer

from omnima.cli.output import print_json
from omnima.cli.shape_options import Json, Markdown, with_shape


@with_shape
def bench(
    task: str = typer.Argument(..., metavar="TASK", help="train, evaluate or tokenize"),
    precision: str = typer.Option("bf16,fp32", help="bf16, fp32, or both"),
    peers: str | None = typer.Option(
        None,
        help="the systems beside ours, with commas: torch-eager, torch-compile, transformers, "
        "litgpt (tokenize: sentencepiece, tokenizers); none; all that are installed when not given",
    ),
    threads: int | None = typer.Option(None, help="threads of every system; all cores by default"),
    rounds: int = typer.Option(3, help="turns that each system takes"),
    seconds: float = typer.Option(2.0, help="length of a turn; one step at least"),
    data: str = typer.Option("pystdlib", help="tokenize: the text"),
    kind: str = typer.Option("bpe", help="tokenize: bpe or unigram"),
    gate: str | None = typer.Option(None, help="a JSON file of ratios that must be reached"),
    markdown: Markdown = False,
    json: Json = False,
    **shape: Any,
) -> None:
    """Measure training, evaluation or tokenization beside PyTorch, transformers and others."""
    from omnima.benchmarking import benchmark as measure
    from omnima.benchmarking import check_gate, read_gate, tables
    from omnima.cli.output import print_table

    rules = read_gate(gate) if gate is not None else []
    report = measure(
        task,
        **shape,
        precision=precision,
        peers=peers,
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        data=data,
        kind=kind,
        say=lambda line: typer.echo(line, err=True),
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
