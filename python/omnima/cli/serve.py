"""`omnima serve` and `omnima api-key`."""

from __future__ import annotations

import typer

from omnima.cli.model_options import (
    activations_option,
    cache_option,
    device_option,
    model_argument,
    strict_option,
)


def serve(
    directory: str = model_argument(),
    adapter: list[str] | None = typer.Option(  # noqa: B008 - Typer's way to say it
        None,
        metavar="NAME=DIR",
        help="an adapter that requests may ask for by this name; may be repeated",
    ),
    name: str | None = typer.Option(None, help="what requests call the model"),
    host: str = typer.Option("127.0.0.1", help="where to listen; elsewhere keys are a must"),
    port: int = typer.Option(8000, min=0, max=65535, help="0: any that is free"),
    grpc_port: int | None = typer.Option(
        None, min=0, max=65535, help="serve by gRPC, too, on this port; 0: any that is free"
    ),
    api_keys: str | None = typer.Option(
        None, help="a file of `omnima api-key`: every request must show a key"
    ),
    max_concurrency: int = typer.Option(16, min=1, max=1024, help="texts written at once"),
    max_waiting: int = typer.Option(128, min=0, help="texts that may wait; more are refused"),
    format: str = typer.Option(
        "auto", help="of the matrices: auto (as stored), float32, bfloat16, int8, int4 or nf4"
    ),
    activations: str = activations_option(),
    device: str = device_option(),
    prompt_precision: str = typer.Option(
        "fp32", help="of the products of prompts: fp32, or bf16 where the CPU has it"
    ),
    cache_precision: str = cache_option(),
    memory_mb: int | None = typer.Option(
        None,
        min=0,
        help="for keys and values of all texts; by default what texts at once may need, if that "
        "is free; 0: no bound",
    ),
    kept_mb: int = typer.Option(
        256, min=0, help="of these for beginnings that later prompts may share"
    ),
    max_tokens: int = typer.Option(0, min=0, help="new tokens of a text at most; 0: the context"),
    requests_per_minute: int = typer.Option(0, min=0, help="of each API key; 0: any number"),
    request_seconds: float = typer.Option(600.0, min=1, help="after which a request is ended"),
    drain_seconds: float = typer.Option(30.0, min=0, help="for those that run at SIGTERM"),
    stall_seconds: float = typer.Option(
        300.0, min=0, help="a step that lasts longer ends the engine's process; 0: never"
    ),
    log: bool = typer.Option(False, "--log", help="a line a request on standard error, no texts"),
    strict: bool = strict_option(),
) -> None:
    """Serve a model to many users at once, by OpenAI's interface, until SIGTERM or Ctrl-C."""
    from omnima.server import EngineOptions, Limits
    from omnima.server.command import Serving, run

    run(
        Serving(
            directory,
            tuple(adapter or ()),
            name,
            host,
            port,
            grpc_port,
            api_keys,
            format,
            activations,
            strict,
            EngineOptions(
                max_sequences=max_concurrency,
                max_waiting=max_waiting,
                memory_bytes=None if memory_mb is None else memory_mb << 20,
                kept_bytes=kept_mb << 20,
                prompt_precision=prompt_precision,
                cache_precision=cache_precision,
            ),
            Limits(
                max_tokens=max_tokens,
                request_seconds=request_seconds,
                requests_per_minute=requests_per_minute,
            ),
            drain_seconds,
            log,
            device,
            stall_seconds,
        )
    )


def api_key(
    file: str = typer.Argument(..., metavar="FILE", help="holds the keys' hashes, never a key"),
    name: str = typer.Option("default", help="whose key it is"),
) -> None:
    """Make an API key for `omnima serve --api-keys FILE`: it is shown once, here."""
    from omnima.server import new_key

    typer.echo(new_key(file, name))
