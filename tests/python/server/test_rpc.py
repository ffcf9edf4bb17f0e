"""gRPC, with a client that is generated from the protocol, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import omnima
from omnima.errors import ConfigError
from omnima.server import new_key
from omnima.server.app import State
from omnima.server.engine import LocalEngine
from omnima.server.jobs import EngineOptions
from omnima.server.keys import ApiKeys
from omnima.server.limits import Limits
from omnima.server.prepare import stop_ids_of
from omnima.server.rpc import PROTOCOL, ROOT, _answered, _Calls, compiled, start_rpc
from omnima.server.running import assembled

OPENS = """
import json, os, sys, threading, time
sys.path.insert(0, sys.argv[1])
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
import protocol_pb2 as messages, protocol_pb2_grpc as services

channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[2])
stub = services.OmnimaStub(channel)
key = [("authorization", "Bearer " + sys.argv[3])]
found = {}

def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""

"""
CLIENT = """
info = stub.ModelInfo(messages.ModelInfoRequest(), metadata=key)
found["info"] = [info.model, list(info.adapters), info.context, info.vocab_size]
asked = dict(prompt="To be", temperature=0, max_new_tokens=12)
replies = list(stub.Generate(messages.GenerateRequest(**asked), metadata=key))
found["text"] = "".join(each.text for each in replies)
found["end"] = [replies[-1].finish_reason, replies[-1].new_tokens, replies[-1].prompt_tokens]
stop = found["text"][3]
cut = stub.Generate(messages.GenerateRequest(**asked, stop=[stop]), metadata=key)
found["cut"] = "".join(each.text for each in cut)
bard = stub.Generate(messages.GenerateRequest(**asked, model="bard"), metadata=key)
found["bard"] = "".join(each.text for each in bard)
barred = messages.GenerateRequest(**asked, frequency_penalty=1.5, logit_bias={1000: -100})
found["barred"] = code(lambda: list(stub.Generate(barred, metadata=key)))
rare = messages.GenerateRequest(**asked, frequency_penalty=1.5, logit_bias={5: 3})
found["rare"] = "".join(each.text for each in stub.Generate(rare, metadata=key))
embedded = stub.Embed(messages.EmbedRequest(input=["To be", "or"]), metadata=key)
found["embedding"] = list(embedded.embeddings[0].values)
health = health_pb2_grpc.HealthStub(channel)
question = health_pb2.HealthCheckRequest(service="omnima.v1.Omnima")
found["health"] = health.Check(question, metadata=key).status
found["watch"] = next(iter(health.Watch(question, metadata=key))).status
found["list"] = sorted(health.List(health_pb2.HealthListRequest(), metadata=key).statuses)
other = health_pb2.HealthCheckRequest(service="other")
found["codes"] = {
    "no key, watch": code(lambda: next(iter(health.Watch(question)))),
    "no key, list": code(lambda: health.List(health_pb2.HealthListRequest())),
    "no service": code(lambda: health.Check(other, metadata=key)),
    "no key": code(lambda: stub.ModelInfo(messages.ModelInfoRequest())),
    "no key, stream": code(lambda: list(stub.Generate(messages.GenerateRequest(prompt="a")))),
    "no key, health": code(lambda: health.Check(question)),
    "no key, abort": code(lambda: stub.Abort(messages.AbortRequest(request_id="a"))),
    "no key, embed": code(lambda: stub.Embed(messages.EmbedRequest(input=["a"]))),
    "no model": code(
        lambda: list(stub.Generate(messages.GenerateRequest(prompt="a", model="x"), metadata=key))
    ),
    "bad": code(
        lambda: list(
            stub.Generate(messages.GenerateRequest(prompt="a", max_new_tokens=-1), metadata=key)
        )
    ),
    "no input": code(lambda: stub.Embed(messages.EmbedRequest(), metadata=key)),
    "large": code(lambda: stub.Embed(messages.EmbedRequest(input=["a" * 99000]), metadata=key)),
}
found["aborted"] = "OK"
for attempt in range(100):  # a small model may have written all before it is stopped
    long = messages.GenerateRequest(prompt="a", max_new_tokens=500, request_id="mine")
    call = stub.Generate(long, metadata=key)
    next(iter(call))
    hit = stub.Abort(messages.AbortRequest(request_id="mine"), metadata=key).found
    found["aborted"] = code(lambda: list(call))[0]
    if hit and found["aborted"] != "OK":
        break
long_id = "x" * 200
for attempt in range(100):
    call = stub.Generate(
        messages.GenerateRequest(prompt="a", max_new_tokens=500, request_id=long_id), metadata=key
    )
    next(iter(call))
    found["long id"] = stub.Abort(messages.AbortRequest(request_id=long_id), metadata=key).found
    call.cancel()
    if found["long id"]:
        break
request = messages.GenerateRequest(prompt="a", max_new_tokens=400, request_id="twin")
for attempt in range(100):  # the first may be done before the second is heard
    twins = [stub.Generate(request, metadata=key) for _ in range(2)]
    found["twins"] = sorted(code(lambda: list(each))[0] for each in twins)
    if len(set(found["twins"])) == 2:
        break
request = messages.GenerateRequest(prompt="a", max_new_tokens=450)
for attempt in range(100):
    many = [stub.Generate(request, metadata=key) for _ in range(20)]
    found["many"] = [code(lambda: list(each))[0] for each in many]
    if len(set(found["many"])) == 2:
        break
found["no call"] = stub.Abort(messages.AbortRequest(request_id="other"), metadata=key).found
print(json.dumps(found))
"""
WATCHING = """
health = health_pb2_grpc.HealthStub(channel)
question = health_pb2.HealthCheckRequest()
found["watched"] = [each.status for each in health.Watch(question, metadata=key, timeout=60)]
found["work"] = code(lambda: stub.ModelInfo(messages.ModelInfoRequest(), metadata=key))
found["check"] = health.Check(question, metadata=key).status
print(json.dumps(found))
"""
# Calls whose message never comes: more of them than the server has places, and one with a key.
SILENT = """
def never():
    threading.Event().wait()
    yield

def begun(path, **more):
    kinds = {"request_serializer": bytes, "response_deserializer": bytes, **more}
    return channel.stream_stream(path, **kinds)

calls = [begun("/omnima.v1.Omnima/Generate")(never(), timeout=60) for _ in range(6)]
calls += [begun("/omnima.v1.Omnima/Embed")(never(), timeout=60)]
found["codes"] = [code(lambda: list(each))[0] for each in calls]

def told(path, messages):
    said = ["RESOURCE_EXHAUSTED"]
    while said[0] == "RESOURCE_EXHAUSTED":  # the places of calls that have ended are given back
        call = begun("/omnima.v1.Omnima/" + path)(messages, timeout=60, metadata=key)
        said = code(lambda: list(call))
    return said

for path in ("Generate", "Embed"):
    found[path], found["no " + path] = told(path, never()), told(path, iter(()))
print(json.dumps(found), flush=True)
os._exit(0)  # threads of the channel wait for what never comes
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("rpc") / "keys"
    return file, new_key(file, "anna")


@contextmanager
def listening(
    model: omnima.Model, key: tuple[Path, str], limits: Limits
) -> Iterator[tuple[int, State]]:
    """Where a gRPC server listens, on a thread of its own, and what its calls share."""
    started: list[tuple[int, State]] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        assert model.tokenizer is not None
        engine = LocalEngine(model, EngineOptions(), stop_ids_of(model.tokenizer))
        keys = ApiKeys.read(key[0])
        _, state = assembled(engine, model.tokenizer, "tiny", limits, keys)
        await state.service.begin()
        server, taken = await start_rpc(state, "127.0.0.1", 0, engine.vocab_size)
        started.append((taken, state))
        ready.set()
        await asyncio.to_thread(stop.wait)
        await server.stop(1)
        await state.service.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert ready.wait(120)
        yield started[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def port(model: omnima.Model, key: tuple[Path, str]) -> Iterator[int]:
    with listening(model, key, Limits(body_bytes=50_000, connections=8)) as (found, _):
        yield found


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a client's modules."""
    folder = tmp_path_factory.mktemp("client")
    made = ROOT / Path(PROTOCOL).parent
    words = [f"-I{made}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", *words, Path(PROTOCOL).name]
    subprocess.run(compiler, check=True)
    return folder


def told(program: str, folder: Path, port: int, key: str) -> Any:
    """What a program saw that finds a client's modules, the server and a key."""
    words = [sys.executable, "-c", OPENS + program, str(folder), str(port), key]
    quiet = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(port: int, key: tuple[Path, str], generated: Path) -> Any:
    """What the generated client saw."""
    return told(CLIENT, generated, port, key[1])


def test_texts_are_those_of_the_engine(found: Any, model: omnima.Model) -> None:
    options = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 12}
    from .test_openai import written

    alone = written(model, "To be", **options)
    assert found["text"] == alone.text and found["end"] == ["length", 12, alone.prompt_tokens]
    assert found["bard"] == written(model, "To be", "bard", **options).text
    rare = written(model, "To be", frequency_penalty=1.5, logit_bias={5: 3.0}, **options)
    assert found["rare"] == rare.text != alone.text
    assert found["barred"][0] == "INVALID_ARGUMENT" and "logit_bias" in found["barred"][1]
    assert found["cut"] == alone.text[: alone.text.index(alone.text[3])]


def test_what_is_served(found: Any, model: omnima.Model) -> None:
    assert found["info"] == ["tiny", ["bard"], 512, 300]
    assert found["health"] == found["watch"] == 1
    assert found["list"] == ["", "omnima.v1.Omnima"]
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("To be", add_bos=True)
    assert found["embedding"] == pytest.approx(model.engine.embedding(ids).tolist(), rel=1e-5)


def test_every_call_wants_a_key(found: Any) -> None:
    codes = {name: each for name, each in found["codes"].items() if name.startswith("no key")}
    assert len(codes) == 7 and {each[0] for each in codes.values()} == {"UNAUTHENTICATED"}


def test_a_call_without_a_message_holds_no_place(
    model: omnima.Model, key: tuple[Path, str], generated: Path
) -> None:
    """Without a key it ends at once, with one soon."""
    with listening(model, key, Limits(body_seconds=0.5, connections=2)) as (port, _):
        found = told(SILENT, generated, port, key[1])
    assert set(found["codes"]) <= {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    for path in ("Generate", "Embed"):
        assert found[path] == ["DEADLINE_EXCEEDED", "The message did not come within 0.5 seconds."]
        assert found[f"no {path}"] == ["INVALID_ARGUMENT", "The call has no message."]


def test_calls_end_with_their_server(
    model: omnima.Model, key: tuple[Path, str], generated: Path
) -> None:
    """One that watches, too: it hears so before. No more work is taken meanwhile."""
    with listening(model, key, Limits()) as (port, state):
        watching = threading.Timer(0.5, state.door.close)
        watching.start()
        found = told(WATCHING, generated, port, key[1])
        watching.join()
    assert found["watched"][-1] == 2 and set(found["watched"]) <= {1, 2}
    assert found["work"] == ["UNAVAILABLE", "The server is shutting down."]
    assert found["check"] == 2


def test_errors_have_their_codes(found: Any) -> None:
    assert found["codes"]["no model"][0] == found["codes"]["no service"][0] == "NOT_FOUND"
    assert found["codes"]["bad"][0] == "INVALID_ARGUMENT"
    assert "max_new_tokens" in found["codes"]["bad"][1]
    assert found["codes"]["no input"][0] == "INVALID_ARGUMENT"
    assert found["codes"]["large"][0] == "RESOURCE_EXHAUSTED"


def test_a_call_is_aborted_by_its_id(found: Any) -> None:
    assert found["aborted"] == "CANCELLED" and found["no call"] is False
    assert found["long id"] is True


def test_an_id_belongs_to_one_call_at_a_time(found: Any) -> None:
    assert found["twins"] == ["INVALID_ARGUMENT", "OK"]


def test_an_id_is_taken_before_its_text_begins(model: omnima.Model) -> None:
    """While the first call is prepared, a second one of its id is refused, and takes nothing."""
    refused: list[str] = []

    class Call:
        def invocation_metadata(self) -> tuple[()]:
            return ()

        async def abort(self, code: Any, said: str) -> None:
            refused.append(said)

    async def main() -> None:
        assert model.tokenizer is not None
        messages, _ = await asyncio.to_thread(compiled)
        engine = LocalEngine(model, EngineOptions(), stop_ids_of(model.tokenizer))
        _, state = assembled(engine, model.tokenizer, "tiny", Limits(), None)
        await state.service.begin()
        calls = _Calls(state, messages, engine.vocab_size)

        async def ask() -> int:
            asked = messages.GenerateRequest(prompt="a", max_new_tokens=3, request_id="twin")
            return len([each async for each in calls.Generate(asked, Call())])

        told = await asyncio.gather(ask(), ask())
        assert not calls._runs
        await state.service.close()
        assert told[0] > 0 and told[1] == 0

    asyncio.run(main())
    assert len(refused) == 1 and "request_id" in refused[0]


def test_a_failure_of_ours_is_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    class Call:
        async def abort(self, code: Any, said: str) -> None:
            told.extend([code.name, said])

    async def work() -> None:
        raise KeyError("a secret")

    assert asyncio.run(_answered(work, Call())) is None
    assert told[0] == "INTERNAL" and "secret" not in told[1]
    assert "a secret" in caplog.text


def test_a_port_that_is_taken_is_said(model: omnima.Model, port: int) -> None:
    async def main() -> None:
        assert model.tokenizer is not None
        engine = LocalEngine(model, EngineOptions(), stop_ids_of(model.tokenizer))
        try:
            _, state = assembled(engine, model.tokenizer, "tiny", Limits(), None)
            with pytest.raises(ConfigError, match=f"gRPC cannot listen on 127.0.0.1, port {port}"):
                await start_rpc(state, "127.0.0.1", port, engine.vocab_size)
        finally:
            await engine.close()

    asyncio.run(main())


def test_so_many_calls_run_at_once(found: Any) -> None:
    assert set(found["many"]) == {"OK", "RESOURCE_EXHAUSTED"} and found["many"].count("OK") < 20
