"""`omnima quantize`: a model in a few bits a weight, and what that costs."""

from __future__ import annotations

import typer

from omnima.cli.model_options import model_argument, strict_option
from omnima.cli.output import Json, print_result


def quantize(
    model: str = model_argument(),
    to: str = typer.Option(..., "--to", help="int8, int4 or nf4"),
    out: str = typer.Option(..., "--out", help="the new directory"),
    method: str | None = typer.Option(
        None, help="rtn, gptq or awq [default: rtn for int8, gptq for four bits]"
    ),
    group_size: int | None = typer.Option(
        None, help="numbers that share a scale: 32, 64, 128; int8 also 0, a row [default: 64]"
    ),
    calibration: str | None = typer.Option(
        None,
        help="text like that which the model will see; its last tenth measures the perplexity "
        "[default: Python's standard library]",
    ),
    strict: bool = strict_option(),
    json: Json = False,
) -> None:
    """Make a model small, and measure it before and after."""
    from omnima.quantization.directory import quantize_directory

    report = quantize_directory(
        model,
        to,
        out,
        method=method,
        group_size=group_size,
        calibration=calibration,
        strict=strict,
    ).as_dict()
    print_result(report, json)
