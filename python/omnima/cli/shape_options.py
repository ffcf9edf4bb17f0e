"""The flags that name a model's shape and its batches, shared by the commands that measure."""

from __future__ import annotations

from typing import Annotated

import typer

Preset = Annotated[
    str | None, typer.Option(help="a preset, or a shape of the tables: bench-1.9m, bench-13.9m, …")
]
Params = Annotated[str | None, typer.Option(help="a number of parameters, such as 20M")]
VocabSize = Annotated[int | None, typer.Option(help="tokens of the vocabulary")]
Context = Annotated[int | None, typer.Option(help="tokens in a row")]
BatchSize = Annotated[int | None, typer.Option(help="rows of a batch")]
Markdown = Annotated[bool, typer.Option("--markdown", help="print a Markdown table")]
Json = Annotated[bool, typer.Option("--json", help="print the result as one JSON object")]
