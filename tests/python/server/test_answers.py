"""Streams that end in an error after their first piece, when the head has long been sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import omnima
from omnima.server.answers import StreamAnswer
from omnima.server.errors import RequestError, engine_away
from omnima.server.forms import Form, Spelling
from omnima.server.prepare import Prepared
from omnima.server.service import Run, Service

from .test_service import Written, event, request


def streamed(
    tokenizer: omnima.Tokenizer, wrong: RequestError, scope: dict[str, Any]
) -> list[dict[str, Any]]:
    """What is sent when a run fails behind its first piece, to a client who once says something."""
    sent: list[dict[str, Any]] = []

    async def main() -> None:
        engine = Written()
        service = Service(engine, tokenizer)
        await service.begin()
        run = await service.write(request())
        form = Form(Prepared(run.request, "tiny"), Spelling(tokenizer), chat=False, counts=False)
        heard = iter([{"type": "http.request"}])

        async def receive() -> Any:
            for each in heard:
                return each
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if fails := FAILS.get(len(sent)):
                fails(run, wrong)

        engine.tell([event(0, tokenizer.encode("to be"))])
        await StreamAnswer(run, form, 60.0)(scope, receive, send)
        assert service.runs == 0 and engine.cancelled == [0]
        await service.close()

    asyncio.run(main())
    return sent


# Behind the head and the first piece.
FAILS: dict[int, Callable[[Run, RequestError], None]] = {2: Run.fail}


@pytest.fixture(scope="module")
def tokenizer() -> omnima.Tokenizer:
    return omnima.Tokenizer.train(["to be or not to be"], "byte")


def test_an_error_is_the_last_piece_of_a_stream(tokenizer: omnima.Tokenizer) -> None:
    head, first, last = streamed(tokenizer, engine_away(), {})
    assert head["status"] == 200 and b'"to be"' in first["body"] and first["more_body"]
    assert last["body"] == b"data: " + engine_away().body() + b"\n\n"
    assert not last["more_body"]


@pytest.mark.parametrize("has_transport", [True, False])
def test_a_client_that_has_gone_is_told_nothing(
    tokenizer: omnima.Tokenizer, has_transport: bool
) -> None:
    ended: list[int] = []
    scope = {"omnima.abort": lambda: ended.append(1)} if has_transport else {}
    sent = streamed(tokenizer, RequestError("The client has gone.", 499), scope)
    assert len(sent) == 2 and len(ended) == has_transport
