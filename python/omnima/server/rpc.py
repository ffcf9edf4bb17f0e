"""gRPC beside HTTP: the same engine, keys and limits, with the messages of protocol.proto.

The messages are compiled when the server starts, so that no generated code has to fit the protobuf
that is installed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, OmnimaError
from omnima.server import extras, schemas
from omnima.server.errors import RequestError, as_request_error
from omnima.server.rpc_guard import RpcGuard, abort, caller
from omnima.server.service import Run

if TYPE_CHECKING:
    from omnima.server.app import State

PROTOCOL = "omnima/server/protocol.proto"
#: The folder that the package's files lie in.
ROOT = Path(__file__).parents[2]
SERVICE = "omnima.v1.Omnima"
_log = logging.getLogger("omnima.server")
_EXTRA = ("grpc", "grpc_tools", "grpc_health")
_WATCH_SECONDS = 1.0
# Methods that ask for no work.
_UNCOUNTED = frozenset(
    [
        f"/{SERVICE}/Abort",
        *(f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")),
    ]
)
_OPTIONS = (
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)


def check_rpc_extra() -> None:
    """OmnimaError where what gRPC needs is not installed."""
    extras.check_extra("gRPC", _EXTRA, "serve,grpc")


def compiled() -> tuple[Any, Any]:
    """Return the modules of the protocol's messages and services."""
    import grpc

    # The compiler looks where modules are looked for, which is elsewhere in an editable install.
    sys.path.append(str(ROOT))
    try:
        messages, services = grpc.protos_and_services(PROTOCOL)
    finally:
        sys.path.remove(str(ROOT))
    return messages, services


async def start_rpc(state: State, host: str, port: int, vocab_size: int) -> tuple[Any, int]:
    """Listen for gRPC; return the server, which has ``stop(grace)``, and its port.

    Raises
    ------
    ConfigError
        It cannot listen there.
    OmnimaError
        The extra ``grpc`` is not installed.
    """
    check_rpc_extra()
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # The compiler of messages needs a thread's patience, and looks for files where modules are.
    messages, services = await asyncio.to_thread(compiled)
    options = [
        ("grpc.max_receive_message_length", state.limits.body_bytes),
        ("grpc.so_reuseport", 0),
    ]
    # It is one but by name: this module is read where gRPC is not installed, too.
    grpc.aio.ServerInterceptor.register(RpcGuard)
    guard = RpcGuard(state.door, state.limits.body_seconds, _UNCOUNTED)
    server = grpc.aio.server(
        interceptors=[guard],
        options=options,
        maximum_concurrent_rpcs=state.limits.connections,
    )
    services.add_OmnimaServicer_to_server(_Calls(state, messages, vocab_size), server)
    health_pb2_grpc.add_HealthServicer_to_server(_Health(state, health_pb2), server)
    shown = f"[{host}]" if ":" in host else host
    try:
        taken = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        taken = 0
    if not taken:
        raise ConfigError(f"gRPC cannot listen on {host}, port {port}.")
    await server.start()
    return server, int(taken)


class _Calls:
    """What protocol.proto says."""

    def __init__(self, state: State, messages: Any, vocab_size: int) -> None:
        self._state, self._messages, self._vocab_size = state, messages, vocab_size
        # By key and id; None: the call has begun, and its run not yet.
        self._runs: dict[tuple[str, str], Run | None] = {}

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Write."""
        run: Run | None = None
        name: tuple[str, str] | None = None
        error: RequestError | None = None
        try:
            with _explained():
                body = {"prompt": request.prompt, "model": request.model}
                body |= {each: getattr(request, each) for each in _given(request)}
                body |= {"stop": list(request.stop)} if request.stop else {}
                body |= {"logit_bias": {str(id): bias for id, bias in request.logit_bias.items()}}
                asked = schemas.parsed(schemas.GenerateRequest, json.dumps(body).encode())
                if request.request_id:
                    wanted = (caller.get(), request.request_id)
                    if wanted in self._runs:
                        raise RequestError("request_id is that of another call that runs.")
                    name = wanted
                    self._runs[name] = None
                prepared = await self._state.preparer.plain(asked)
                run = await self._state.service.write(prepared.request)
                if name is not None:
                    self._runs[name] = run
                while pieces := await run.next():
                    yield self._reply(run, pieces)
        except RequestError as found:
            error = found
        finally:
            if run is not None:
                run.cancel()
            if name is not None:
                self._runs.pop(name, None)
        if error is not None:
            await abort(context, error)

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Mean hidden states."""

        async def work() -> Any:
            preparer = self._state.preparer
            adapter = preparer.adapter_of(request.model)
            rows = await asyncio.to_thread(
                preparer.texts_to_embed, list(request.input), self._state.limits.inputs
            )
            seconds = self._state.limits.request_seconds
            found = await self._state.service.embed(rows, adapter, seconds)
            return self._messages.EmbedReply(
                embeddings=[self._messages.Embedding(values=each) for each in found],
                prompt_tokens=sum(map(len, rows)),
            )

        return await _answered(work, context)

    async def Abort(self, request: Any, context: Any) -> Any:  # noqa: N802
        """End a call."""

        async def work() -> Any:
            run = self._runs.get((caller.get(), request.request_id))
            if run is not None:
                run.fail(RequestError("The request was aborted.", 499))
            return self._messages.AbortReply(found=run is not None)

        return await _answered(work, context)

    async def ModelInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What is served."""

        async def work() -> Any:
            preparer = self._state.preparer
            return self._messages.ModelInfoReply(
                model=preparer.name,
                adapters=preparer.adapters,
                context=preparer.context,
                vocab_size=self._vocab_size,
            )

        return await _answered(work, context)

    def _reply(self, run: Run, pieces: Any) -> Any:
        return self._messages.GenerateReply(
            text="".join(each.text for each in pieces),
            finish_reason=pieces[-1].reason,
            prompt_tokens=run.prompt_tokens,
            new_tokens=run.new_tokens,
            cached_tokens=run.cached_tokens,
        )


class _Health:
    """grpc.health.v1: of the server ("") and of its service."""

    def __init__(self, state: State, messages: Any) -> None:
        self._state, self._messages = state, messages

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the engine answers."""

        async def work() -> Any:
            if request.service not in ("", SERVICE):
                raise RequestError(f"There is no service {request.service!r:.80}.", 404)
            return await self._status()

        return await _answered(work, context)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The same, of all services."""

        async def work() -> Any:
            status = await self._status()
            return self._messages.HealthListResponse(statuses={"": status, SERVICE: status})

        return await _answered(work, context)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The same whenever it changes, until the server ends, which waits for its calls."""
        before = None
        while True:
            last = self._state.draining
            now = await self._status()
            if now != before:
                yield now
                before = now
            if last:
                return
            await asyncio.sleep(_WATCH_SECONDS)

    async def _status(self) -> Any:
        from omnima.server.app import engine_stats

        kinds = self._messages.HealthCheckResponse
        well = not self._state.draining and await engine_stats(self._state.service) is not None
        return kinds(status=kinds.SERVING if well else kinds.NOT_SERVING)


def _given(request: Any) -> list[str]:
    return [each for each in _OPTIONS if request.HasField(each)]


@contextmanager
def _explained() -> Any:
    """Errors of ours as those of a request; others are logged, and say nothing to the client."""
    try:
        yield
    except OmnimaError as error:
        raise as_request_error(error) from None
    except Exception as error:
        _log.error("A call failed.", exc_info=error)
        raise as_request_error(error) from None


async def _answered(work: Callable[[], Awaitable[Any]], context: Any) -> Any:
    try:
        with _explained():
            return await work()
    except RequestError as error:
        await abort(context, error)
