"""What `omnima serve` does: HTTP in this process, the engine in another."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omnima.errors import ConfigError
from omnima.server.ending import cancel_at_signals, ends_at_once
from omnima.server.jobs import EngineOptions
from omnima.server.keys import ApiKeys, is_loopback
from omnima.server.limits import Limits
from omnima.server.memory import said
from omnima.server.running import (
    assembled,
    check_extra,
    keys_for,
    listen,
    run_loop,
    serve_here,
)

if TYPE_CHECKING:
    from omnima.tokenizers import Tokenizer

#: How the matrices of a model are held, by the names of `--format`.
FORMATS = ("auto", "float32", "bfloat16", "bf16", "int8", "int4", "nf4")


@dataclass(frozen=True)
class Serving:
    """What is served, where, and how.

    Attributes
    ----------
    model
        A directory, a GGUF file or a name on the hub.
    adapters
        Each as ``NAME=DIR``.
    name
        What requests call the model; None: the last part of its path.
    host, port, api_keys
        As :func:`omnima.serve` takes them.
    grpc_port
        For gRPC, too; None: not at all.
    format
        One of FORMATS.
    activations, strict, device
        As ``Model.from_pretrained`` takes them.
    options, limits
        Of the engine, and of requests.
    drain_seconds
        How long requests that have begun may go on after SIGTERM, by HTTP and gRPC together.
    stall_seconds
        After which an engine whose step does not end is started anew; 0: never.
    log
        Write a line a request to standard error.
    """

    model: str
    adapters: Sequence[str] = ()
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    api_keys: str | None = None
    format: str = "auto"
    activations: str = "float32"
    strict: bool = False
    options: EngineOptions = field(default_factory=EngineOptions)
    limits: Limits = field(default_factory=Limits)
    drain_seconds: float = 30.0
    log: bool = False
    device: str = "cpu"
    stall_seconds: float = 300.0


@ends_at_once()
def run(wanted: Serving) -> None:
    """Serve until SIGTERM or Ctrl-C; one line on standard output says that it is ready. Before that
    a signal ends the process at once, with 0.

    Raises
    ------
    ConfigError, DataError
        Something that cannot be opened or served.
    """
    check_extra()
    from omnima.hub import open_tokenizer
    from omnima.server.rpc import check_rpc_extra

    if wanted.format not in FORMATS:
        raise ConfigError(f"--format is {wanted.format!r}; there is {', '.join(FORMATS)}.")
    if wanted.grpc_port is not None:
        check_rpc_extra()
    adapters = adapters_of(wanted.adapters)
    keys = keys_for(wanted.host, wanted.api_keys)
    if wanted.log:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        logging.getLogger("omnima.server").setLevel(logging.INFO)
    with listen(wanted.host, wanted.port) as listening:
        tokenizer = open_tokenizer(wanted.model)
        with suppress(asyncio.CancelledError):  # a signal came while the engine started
            run_loop(_served(wanted, adapters, keys, tokenizer, listening))


async def _served(
    wanted: Serving,
    adapters: dict[str, str],
    keys: ApiKeys | None,
    tokenizer: Tokenizer,
    listening: socket.socket,
) -> None:
    """Start the engine's process, then gRPC, then HTTP; end them in the other order."""
    from omnima.server.prepare import stop_ids_of
    from omnima.server.remote import RemoteEngine
    from omnima.server.rpc import start_rpc
    from omnima.server.worker import Opening

    cancel_at_signals()
    name = wanted.name or name_of(wanted.model)
    engine = RemoteEngine(
        Opening(
            wanted.model,
            adapters,
            wanted.format,
            wanted.activations,
            wanted.strict,
            stop_ids_of(tokenizer),
            asdict(wanted.options),
            wanted.device,
        ),
        stall_seconds=wanted.stall_seconds,
    )
    try:
        await engine.start()
        app, state = assembled(engine, tokenizer, name, wanted.limits, keys)
        calls, port = None, None
        if wanted.grpc_port is not None:
            calls, port = await start_rpc(state, wanted.host, wanted.grpc_port, engine.vocab_size)
        ready = partial(_say_ready, name, listening, port, engine.memory_bytes)
        try:
            drain = wanted.drain_seconds
            await serve_here(app, state, listening, wanted.limits, drain, ready, calls)
        finally:
            if calls is not None:
                await calls.stop(0)
    finally:
        await engine.close()


def _say_ready(
    name: str, listening: socket.socket, grpc_port: int | None, memory_bytes: int
) -> None:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    open_to = "this machine" if is_loopback(host) else "all who have a key"
    also = "" if grpc_port is None else f" and by gRPC on port {grpc_port}"
    held = f", with {said(memory_bytes)} for keys and values" if memory_bytes else ""
    print(f"{name} is served at http://{shown}:{port}{also} for {open_to}{held}.", flush=True)


def adapters_of(given: Sequence[str]) -> dict[str, str]:
    """Return the adapters' directories by name.

    >>> adapters_of(["poet=runs/poet"])
    {'poet': 'runs/poet'}
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, directory = each.partition("=")
        if not equals or not name or not directory:
            raise ConfigError(f"--adapter is {each!r}, but it is NAME=DIR.")
        if name in found:
            raise ConfigError(f"--adapter names {name!r} twice.")
        found[name] = directory
    return found


def name_of(model: str) -> str:
    """What requests call a model where nothing else is said.

    >>> name_of("runs/stories/"), name_of("HuggingFaceTB/SmolLM2-135M@main")
    ('stories', 'SmolLM2-135M')
    """
    path = Path(model)
    if path.exists():
        found = path.resolve()
        return found.stem if found.is_file() else found.name
    return path.name.partition("@")[0] or "omnima"
