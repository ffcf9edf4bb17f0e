"""What stands before every call of gRPC: the same keys and rates as of HTTP, before any message has
come, and a bound on how long that may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from omnima.server.errors import RequestError
from omnima.server.guard import Door

#: Whose key the call that is being answered has shown.
caller: ContextVar[str] = ContextVar("caller", default="-")
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RpcGuard:
    """Lets calls in by what their heads say: whoever has no key holds no place, and whoever has one
    must send the message soon.

    Parameters
    ----------
    door
        Of HTTP and gRPC together.
    seconds
        In which a message must come.
    uncounted
        Methods that ask for no work: they are free of the rate, and of the end of a server.
    """

    def __init__(self, door: Door, seconds: float, uncounted: frozenset[str]) -> None:
        self._door, self._seconds, self._uncounted = door, seconds, uncounted

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return what answers the call."""
        said = dict(details.invocation_metadata or ())
        counts = details.method not in self._uncounted
        try:
            caller.set(self._door.enter(str(said.get("authorization", "")), counts))
        except RequestError as error:
            return _refusing(error)
        handler = await continuation(details)
        return handler and _patient(handler, self._seconds)


async def abort(context: Any, error: RequestError) -> None:
    """End a call with an error."""
    import grpc

    code = getattr(grpc.StatusCode, _STATUS.get(error.status, "INTERNAL"))
    await context.abort(code, str(error))


# A handler of one message is called when that has come; one of many messages at once. So these are
# of many, whatever the method takes.


def _refusing(error: RequestError) -> Any:
    import grpc

    async def refuse(messages: AsyncIterator[Any], context: Any) -> None:
        await abort(context, error)

    return grpc.stream_unary_rpc_method_handler(refuse)


def _patient(handler: Any, seconds: float) -> Any:
    """A handler of one message that waits for it no longer than this."""
    import grpc

    async def first(messages: AsyncIterator[Any], context: Any) -> Any:
        try:
            return await asyncio.wait_for(messages.__aiter__().__anext__(), seconds)
        except StopAsyncIteration:
            await abort(context, RequestError("The call has no message."))
        except asyncio.TimeoutError:
            said = f"The message did not come within {seconds:g} seconds."
            await abort(context, RequestError(said, 408))

    async def one(messages: AsyncIterator[Any], context: Any) -> Any:
        return await handler.unary_unary(await first(messages, context), context)

    async def many(messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        message = await first(messages, context)
        async with aclosing(handler.unary_stream(message, context)) as replies:
            async for each in replies:
                yield each

    forms = handler.request_deserializer, handler.response_serializer
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(many, *forms)
    return grpc.stream_unary_rpc_method_handler(one, *forms)
