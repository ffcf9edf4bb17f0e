"""The routes."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from omnima.errors import OmnimaError
from omnima.server import schemas
from omnima.server.answers import StreamAnswer, WholeAnswer
from omnima.server.conversation import ids_of
from omnima.server.errors import RequestError, as_request_error, shutting_down
from omnima.server.forms import Form, Spelling, plain_answer
from omnima.server.guard import App, Door, Guard, read_body
from omnima.server.jobs import EngineClient
from omnima.server.keys import ApiKeys
from omnima.server.limits import Limits
from omnima.server.metrics import Metrics
from omnima.server.prepare import Prepared, Preparer
from omnima.server.service import Run, Service

_log = logging.getLogger("omnima.server")
_PROBE_SECONDS = 5.0


@dataclass
class State:
    """What the routes share."""

    service: Service
    preparer: Preparer
    limits: Limits
    metrics: Metrics
    spelling: Spelling
    door: Door
    began: int

    @property
    def draining(self) -> bool:
        """Whether the server ends: what has begun is written, and no more is taken."""
        return self.door.closed


class Json(Response):
    """JSON of a plain value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes; numbers that JSON lacks are an error."""
        return json.dumps(content, allow_nan=False).encode()


def build_app(
    engine: EngineClient,
    preparer: Preparer,
    limits: Limits,
    keys: ApiKeys | None = None,
) -> tuple[App, State]:
    """Return the application of a server, and what its routes share.

    Parameters
    ----------
    engine
        Writes.
    preparer
        Knows the model.
    limits
        Of requests.
    keys
        One of them is wanted on every route; None: none is.
    """
    metrics = Metrics(preparer.name)
    service = Service(engine, preparer.tokenizer, metrics.finished)
    spelling = Spelling(preparer.tokenizer)
    door = Door(keys, limits)
    state = State(service, preparer, limits, metrics, spelling, door, int(time.time()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.begin()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="Omnima", docs_url=None, redoc_url=None, lifespan=lifespan)
    _errors(app)
    _writing(app, state)
    _reading(app, state)
    _about(app, state)
    _describe(app)
    return Guard(app, door, limits, metrics), state


def _errors(app: FastAPI) -> None:
    async def ours(_: Request, error: Exception) -> Response:
        if not isinstance(error, OmnimaError):
            _log.error("A request failed.", exc_info=error)
        return _as_response(as_request_error(error))

    async def of_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "There is no such route.", 405: "This route has no such method."}
        found = RequestError(said.get(error.status_code, str(error.detail)), error.status_code)
        response = _as_response(found)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(OmnimaError, ours)
    app.add_exception_handler(HTTPException, of_route)
    app.add_exception_handler(Exception, ours)


def _as_response(error: RequestError) -> Response:
    response = Response(error.body(), error.status)
    for name, value in error.headers():
        response.headers[name.decode()] = value.decode()
    return response


def _writing(app: FastAPI, state: State) -> None:
    preparer = state.preparer

    @app.post("/v1/completions", **_takes(schemas.CompletionRequest))
    async def completions(request: Request) -> Response:
        """Write on from prompts."""
        body = await _body(state, request, schemas.CompletionRequest)
        return await _answer(state, await preparer.completion(body), body, chat=False)

    @app.post("/v1/chat/completions", **_takes(schemas.ChatRequest))
    async def chat(request: Request) -> Response:
        """Answer a conversation."""
        body = await _body(state, request, schemas.ChatRequest)
        return await _answer(state, await preparer.chat(body), body, chat=True)

    @app.post("/generate", **_takes(schemas.GenerateRequest))
    async def generate(request: Request) -> Response:
        """Write on from one prompt."""
        body = await _body(state, request, schemas.GenerateRequest)
        prepared = await preparer.plain(body)
        return WholeAnswer(await state.service.write(prepared.request), plain_answer)


async def _body(state: State, request: Request, kind: type[schemas.Body]) -> schemas.Body:
    return schemas.parsed(kind, await read_body(request.receive, state.limits))


async def _answer(state: State, prepared: Prepared, body: schemas.Sampling, chat: bool) -> Response:
    """Begin to write; the answer waits for what is written, or sends it piece by piece."""
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options goes with stream: true.", param="stream_options")
    counts = body.stream_options is not None and bool(body.stream_options.include_usage)
    form = Form(prepared, state.spelling, chat, counts)
    run = await state.service.write(prepared.request)
    if body.stream:
        return StreamAnswer(run, form, state.limits.slow_reader_seconds)

    def made(run: Run, pieces: list[Any]) -> bytes:
        for piece in pieces:
            form.take(piece)
        return form.whole(run)

    return WholeAnswer(run, made)


def _reading(app: FastAPI, state: State) -> None:
    preparer, limits = state.preparer, state.limits

    @app.post("/v1/embeddings", **_takes(schemas.EmbeddingRequest))
    async def embeddings(request: Request) -> Response:
        """The mean of the last hidden states of each text."""
        body = await _body(state, request, schemas.EmbeddingRequest)
        adapter = preparer.adapter_of(body.model)
        rows = await _aside(preparer.texts_to_embed, body.input, limits.inputs)
        found = await state.service.embed(
            rows, adapter, limits.request_seconds, request.is_disconnected
        )
        data = [
            {"object": "embedding", "index": i, "embedding": _as_asked(each, body.encoding_format)}
            for i, each in enumerate(found)
        ]
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        model = body.model or preparer.name
        return Json({"object": "list", "model": model, "data": data, "usage": usage})

    @app.post("/tokenize", **_takes(schemas.TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        """The ids of a text, or of a conversation up to where the answer begins."""
        body = await _body(state, request, schemas.TokenizeRequest)
        preparer.adapter_of(body.model)
        tokenizer = preparer.tokenizer
        if (body.prompt is None) == (body.messages is None):
            raise RequestError("Give prompt or messages, one of them.", param="prompt")
        if body.messages:
            ids = await _aside(ids_of, tokenizer, body.messages, limits)
        else:
            begins = body.add_special_tokens and tokenizer.bos_id is not None
            ids = await _aside(tokenizer.encode, body.prompt or "", begins)
        return Json({"tokens": ids, "count": len(ids), "max_model_len": preparer.context})


def _about(app: FastAPI, state: State) -> None:
    preparer, service = state.preparer, state.service

    def described(name: str) -> dict[str, Any]:
        parent = None if name == preparer.name else preparer.name
        return {
            "id": name,
            "object": "model",
            "created": state.began,
            "owned_by": "omnima",
            "parent": parent,
            "max_model_len": preparer.context,
        }

    @app.get("/v1/models")
    async def models() -> Response:
        """The model and its adapters."""
        return Json({"object": "list", "data": [described(name) for name in preparer.models]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """One of them."""
        preparer.adapter_of(name)
        return Json(described(name))

    @app.get("/health")
    async def health() -> Response:
        """Whether the engine answers."""
        stats = await engine_stats(service)
        if stats is None:
            raise RequestError("The engine does not answer.", 503, retry_after=5)
        memory = service.engine.memory_bytes
        return Json({"status": "ok", "running": stats.get("running", 0), "memory_bytes": memory})

    @app.get("/ready")
    async def ready() -> Response:
        """Whether requests are taken: not while the engine starts or the server ends."""
        if state.draining:
            raise shutting_down()
        return await health()

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        restarts = getattr(service.engine, "restarts", 0)
        text = state.metrics.text(await engine_stats(service), restarts)
        return Response(text, media_type=state.metrics.content_type)


async def engine_stats(service: Service) -> dict[str, float] | None:
    """Return the engine's figures; None: it does not answer."""
    try:
        return await asyncio.wait_for(service.engine.stats(), _PROBE_SECONDS)
    except (OmnimaError, asyncio.TimeoutError):
        return None


async def _aside(work: Callable[..., Any], *given: Any) -> Any:
    return await asyncio.to_thread(work, *given)


def _as_asked(numbers: list[float], encoding: str | None) -> Any:
    if encoding == "base64":
        return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()
    return numbers


def _takes(kind: type[schemas.Strict]) -> dict[str, Any]:
    """What the description of the interface says of a route's body, which the route reads itself:
    its size is bounded, and it is read as it stands.
    """
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content = {"application/json": {"schema": reference}}
    about = {"requestBody": {"required": True, "content": content}}
    error = {"content": {"application/json": {"schema": {"type": "object"}}}}
    codes = {400: "wrong", 404: "no such model", 413: "too large", 429: "too many", 503: "away"}
    responses = {code: {"description": said, **error} for code, said in codes.items()}
    return {"openapi_extra": about, "responses": responses}


def _describe(app: FastAPI) -> None:
    """Add the schemas of bodies to the description of the interface."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version="1", routes=app.routes)
            known = found.setdefault("components", {}).setdefault("schemas", {})
            for kind in (
                schemas.CompletionRequest,
                schemas.ChatRequest,
                schemas.GenerateRequest,
                schemas.EmbeddingRequest,
                schemas.TokenizeRequest,
            ):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                known.update(schema.pop("$defs", {}))
                known[kind.__name__] = schema
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
