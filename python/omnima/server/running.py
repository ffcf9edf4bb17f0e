"""A server that runs: in this process beside other code, or as all that the process does."""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, OmnimaError
from omnima.server import extras

if TYPE_CHECKING:
    import uvicorn

    from omnima.model import Model
    from omnima.server.app import State
    from omnima.server.guard import App
    from omnima.server.jobs import EngineClient, EngineOptions
    from omnima.server.keys import ApiKeys
    from omnima.server.limits import Limits
    from omnima.tokenizers import Tokenizer

_EXTRA = ("fastapi", "uvicorn", "prometheus_client", "llguidance")
_START_SECONDS = 60.0


def check_extra() -> None:
    """OmnimaError where what a server needs is not installed."""
    extras.check_extra("A server", _EXTRA, "serve")


@dataclass
class Server:
    """A server that runs.

    Attributes
    ----------
    host, port
        Where it listens.
    """

    host: str
    port: int
    _state: State = field(repr=False)
    _stop: Callable[[], None] = field(repr=False)

    @property
    def url(self) -> str:
        """Its address; OpenAI's client wants it with ``/v1``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Write the requests that have begun to their end, and stop."""
        self._stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    model: Model,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    name: str = "omnima",
    api_keys: str | Path | None = None,
    options: EngineOptions | None = None,
    limits: Limits | None = None,
    drain_seconds: float = 30.0,
) -> Server:
    """Serve a model from this process, beside what else it does.

    Parameters
    ----------
    model
        With its tokenizer, computing on the device where it is. Requests choose its adapters by
        name (on the CPU alone); none is in use meanwhile, and those that were are in use again
        afterwards.
    port
        To listen on; 0: any that is free.
    host
        This machine alone by default.
    name
        What requests call the model.
    api_keys
        A file of hashed keys (:func:`omnima.server.new_key`), one of which every request must show.
        A must where others than this machine can connect.
    options
        How much is written at once: :class:`omnima.server.EngineOptions`.
    limits
        Of requests: :class:`omnima.server.Limits`.
    drain_seconds
        How long requests that have begun may go on when the server is closed.

    Returns
    -------
    Server
        Runs until its ``close()``, or until its ``with`` block is left.

    Raises
    ------
    ConfigError
        A model without a tokenizer, a port that is taken, no keys where they are a must, too
        little memory for texts, or a GPU that cannot write with this model.
    OmnimaError
        The extra ``serve`` is not installed.

    Examples
    --------
    >>> import json, urllib.request, omnima
    >>> model = omnima.Model.from_preset("nima", vocab_size=259, max_position_embeddings=128)
    >>> model.tokenizer = omnima.Tokenizer.train(["to be"], "byte")
    >>> with omnima.serve(model) as server:
    ...     with urllib.request.urlopen(server.url + "/v1/models") as answer:
    ...         print(json.load(answer)["data"][0]["id"])
    omnima
    """
    check_extra()
    from omnima.server.engine import LocalEngine
    from omnima.server.jobs import EngineOptions
    from omnima.server.limits import Limits
    from omnima.server.prepare import stop_ids_of

    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer: set model.tokenizer.")
    keys = keys_for(host, api_keys)
    listening = listen(host, port)
    engine = None
    try:
        stop_ids = stop_ids_of(model.tokenizer)
        engine = LocalEngine(model, options or EngineOptions(), stop_ids)
        limits = limits or Limits()
        app, state = assembled(engine, model.tokenizer, name, limits, keys)
        return _in_thread(app, state, listening, limits, drain_seconds)
    except BaseException:
        listening.close()
        if engine is not None:
            engine.end()
        raise


def assembled(
    engine: EngineClient, tokenizer: Tokenizer, name: str, limits: Limits, keys: ApiKeys | None
) -> tuple[App, State]:
    """Return the application around an engine, and what its routes share."""
    from omnima.server.app import build_app
    from omnima.server.prepare import Preparer

    preparer = Preparer(tokenizer, name, engine.adapters, engine.context, engine.vocab_size, limits)
    return build_app(engine, preparer, limits, keys)


def keys_for(host: str, path: str | Path | None) -> ApiKeys | None:
    """Return the keys that requests must show; ConfigError where there must be some."""
    from omnima.server.keys import ApiKeys, is_loopback

    if path is not None:
        return ApiKeys.read(path)
    if not is_loopback(host):
        raise ConfigError(
            f"Others than this machine can connect to {host}: make API keys with "
            "`omnima api-key FILE` and give the file."
        )
    return None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; ConfigError where that cannot be."""
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"port is {port}, but ports go from 1 to 65535 (0: any that is free).")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(1024)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"The server cannot listen on {host}, port {port}: {why}.") from None
    return made


async def serve_here(
    app: App,
    state: State,
    listening: socket.socket,
    limits: Limits,
    drain_seconds: float,
    ready: Callable[[], object],
    calls: Any = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain, the `calls` of a gRPC server with it, within
    `drain_seconds` in all; a second signal drains no longer.
    """
    server = _uvicorn(app, limits, drain_seconds)
    loop = asyncio.get_running_loop()

    def end() -> None:
        if state.draining:
            server.force_exit = server.should_exit = True
        else:
            state.door.close()
            ending.append(loop.create_task(drain()))

    async def drain() -> None:
        late = loop.time() + drain_seconds
        try:
            if calls is not None:  # HTTP ends last, and the engine with it
                await calls.stop(drain_seconds)
        finally:
            server.config.timeout_graceful_shutdown = _whole(late - loop.time())
            server.should_exit = True

    ending: list[asyncio.Task[None]] = []

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end)
    await serving(server, listening, ready)


def _in_thread(
    app: App, state: State, listening: socket.socket, limits: Limits, drain_seconds: float
) -> Server:
    server = _uvicorn(app, limits, drain_seconds)
    end = start_thread(server, lambda ready: serving(server, listening, ready), state.door.close)
    host, port = listening.getsockname()[:2]
    return Server(host, port, state, end)


def start_thread(
    server: uvicorn.Server,
    main: Callable[[Callable[[], object]], Coroutine[Any, Any, None]],
    before_end: Callable[[], object],
) -> Callable[[], None]:
    """Run an event loop with a server on a thread of its own.

    Parameters
    ----------
    server
        Ends when its `should_exit` is set.
    main
        Serves; it calls what it is given when the server answers.
    before_end
        Called when the server is about to be ended.

    Returns
    -------
    Callable
        Ends the server and waits for its thread. It is called before the interpreter ends.

    Raises
    ------
    OmnimaError
        The server did not start.
    """
    started = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            run_loop(main(started.set))
        except BaseException as error:  # noqa: BLE001 - told to whoever started it
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="omnima-server", daemon=True)
    thread.start()
    if not started.wait(_START_SECONDS):
        server.should_exit = True
        raise OmnimaError(f"The server did not start within {_START_SECONDS:g} seconds.")
    if errors:
        raise OmnimaError(f"The server did not start: {errors[0]}.") from errors[0]

    def end() -> None:
        atexit.unregister(end)
        before_end()
        server.should_exit = True
        thread.join()

    atexit.register(end)
    return end


async def serving(
    server: uvicorn.Server, listening: socket.socket, ready: Callable[[], object]
) -> None:
    """Serve until the server is told to exit; `ready` is called when it answers."""
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    if server.started:
        ready()
    await task
    if not server.started:
        raise OmnimaError("its application failed")


def _uvicorn(app: App, limits: Limits, drain_seconds: float) -> uvicorn.Server:
    import uvicorn

    from omnima.server.connections import protocol_for

    return quiet_server(
        uvicorn.Config(
            app,
            http=protocol_for(limits),
            h11_max_incomplete_event_size=limits.head_bytes,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_whole(drain_seconds),
            backlog=1024,
            lifespan="on",
            ws="none",
        )
    )


def _whole(seconds: float) -> int:
    """Seconds as uvicorn takes them: one at least."""
    return max(1, round(seconds))


def quiet_server(config: uvicorn.Config) -> uvicorn.Server:
    """Return a server that leaves signals and what is said in logs to us."""
    import uvicorn

    class Quiet(uvicorn.Server):
        """Leaves signals to us: it would end the process by the signal, not with 0."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            """Return where it does not start, instead of ending the process."""
            with suppress(SystemExit):
                await super().serve(sockets)

    # It says in its log what we say in answers; its errors there hold no more.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return Quiet(config)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run with uvloop where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
