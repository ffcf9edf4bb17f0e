"""Who may ask, how much and how often: keys on every route, sizes, rates, a full queue, time."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

import omnima
from omnima.errors import ConfigError, DataError
from omnima.server import ApiKeys, EngineOptions, Limits, Server, new_key

from .http import ask, connect, running, until

SHORT = {"prompt": "a", "max_tokens": 1}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys"


@pytest.fixture(scope="module")
def keys(key_file: Path) -> list[str]:
    return [new_key(key_file, "anna"), new_key(key_file, "ben")]


@pytest.fixture(scope="module")
def guarded(model: omnima.Model, key_file: Path, keys: list[str]) -> Iterator[Server]:
    """A server with keys, and limits that tests reach."""
    limits = Limits(body_bytes=10_000, body_seconds=1.0)
    options = EngineOptions(max_sequences=1, max_waiting=1)
    with omnima.serve(model, api_keys=key_file, limits=limits, options=options) as server:
        yield server


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_wants_a_key(guarded: Server, keys: list[str]) -> None:
    _, about, _ = ask(guarded, "/openapi.json", headers=with_key(keys[0]))
    routes = {(path, method) for path, each in about["paths"].items() for method in each}
    assert {path for path, _ in routes} >= {"/health", "/metrics", "/v1/models", "/tokenize"}
    routes |= {("/openapi.json", "get"), ("/nothing", "get"), ("/v1/chat/completions", "options")}
    for path, method in routes:
        for key in ("", "om-wrong", keys[0] + "x", "é" * 9):
            status, answer, head = ask(
                guarded,
                path.replace("{name}", "x"),
                SHORT if method == "post" else None,
                {"Authorization": f"Bearer {key}".encode().decode("latin-1")} if key else {},
                method.upper(),
            )
            assert status == 401 and answer["error"]["code"] == "invalid_api_key", path
            assert head["www-authenticate"] == "Bearer"
    assert ask(guarded, "/health", headers=with_key(keys[1]))[0] == 200
    assert ask(guarded, "/health", headers={"Authorization": f"Basic {keys[1]}"})[0] == 401


@pytest.mark.parametrize(
    "head",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "["},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example:8000"},
    ],
    ids=str,
)
def test_without_keys_other_sites_are_refused(server: Server, head: dict[str, str]) -> None:
    """A page in a browser of this machine, or a name of its own that leads here."""
    for path, body in (("/v1/completions", SHORT), ("/health", None)):
        status, answer, _ = ask(server, path, body, head)
        assert status == 403 and answer["error"]["code"] == "not_local"
        assert next(iter(head)) in answer["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]", "[::1]:9"])
def test_without_keys_this_machine_is_let_in(server: Server, host: str) -> None:
    assert ask(server, "/health", headers={"Host": host, "Origin": f"http://{host}"})[0] == 200


def test_with_keys_any_name_is_answered(guarded: Server, keys: list[str]) -> None:
    head = {"Host": "omnima:8000", "Origin": "http://x.example", **with_key(keys[0])}
    assert ask(guarded, "/health", headers=head)[0] == 200


def test_a_key_file_holds_hashes_and_belongs_to_its_owner(key_file: Path, keys: list[str]) -> None:
    text = key_file.read_text()
    assert all(key not in text and key[3:] not in text for key in keys)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    found = ApiKeys.read(key_file)
    assert [found.name_of(key) for key in keys] == ["anna", "ben"]
    with pytest.raises(ConfigError, match="anna already"):
        new_key(key_file, "anna")
    with pytest.raises(ConfigError, match="letters, digits"):
        new_key(key_file, "anna\nbob sha256 00 00")


@pytest.mark.parametrize("text", ["", "anna", "anna sha256 zz 00", "anna md5 00 00", "a b c d e"])
def test_a_damaged_key_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(DataError, match="line 1" if text else "no API key"):
        ApiKeys.read(file)


def test_elsewhere_than_on_this_machine_keys_are_a_must(model: omnima.Model) -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(ConfigError, match="make API keys"):
            omnima.serve(model, host=host)


def test_a_port_that_is_taken_is_said(model: omnima.Model) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            omnima.serve(model, port=port)


def test_a_body_that_is_too_large_is_not_read(guarded: Server, keys: list[str]) -> None:
    status, answer, _ = ask(guarded, "/v1/completions", {"prompt": "a" * 20_000}, with_key(keys[0]))
    assert status == 413 and "10000 bytes" in answer["error"]["message"]


def exchange(server: Server, sent: bytes) -> bytes:
    there = urlparse(server.url)
    with socket.create_connection((there.hostname, there.port), timeout=60) as channel:
        channel.sendall(sent)
        found = b""
        while part := channel.recv(1 << 16):
            found += part
            if re.search(rb"\r\n\r\n.*\}\}", found, re.S):
                break
        return found


def test_a_body_in_parts_that_is_too_large_is_not_read(guarded: Server, keys: list[str]) -> None:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys[0]}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    part = b"%x\r\n%s\r\n" % (4000, b"a" * 4000)
    assert b" 413 " in exchange(guarded, head.encode() + part * 3)


def test_a_body_that_does_not_come_is_waited_for_shortly(guarded: Server, keys: list[str]) -> None:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys[0]}\r\n"
        "Content-Length: 100\r\n\r\n{"
    )
    assert b" 408 " in exchange(guarded, head.encode())


def test_a_full_queue_is_said(guarded: Server, keys: list[str]) -> None:
    body = {"prompt": "a", "max_tokens": 500}
    status, answer, head = ask(guarded, "/v1/completions", {**body, "n": 16}, with_key(keys[1]))
    assert status == 429 and answer["error"]["code"] == "queue_full"
    assert int(head["retry-after"]) >= 1
    # Those of the request that were taken are ended, too, within a step.
    short = {**body, "max_tokens": 2}
    assert until(lambda: ask(guarded, "/v1/completions", short, with_key(keys[1]))[0] == 200)


def test_more_than_a_rate_is_refused_by_key(
    model: omnima.Model, key_file: Path, keys: list[str]
) -> None:
    limits = Limits(requests_per_minute=6)
    with omnima.serve(model, api_keys=key_file, limits=limits) as server:
        found = [ask(server, "/v1/models", headers=with_key(keys[0])) for _ in range(4)]
        assert [status for status, _, _ in found] == [200, 429, 429, 429]
        assert found[-1][1]["error"]["code"] == "rate_limit"
        assert 3 < int(found[-1][2]["retry-after"]) <= 11
        assert ask(server, "/v1/models", headers=with_key(keys[1]))[0] == 200
        assert ask(server, "/health", headers=with_key(keys[0]))[0] == 200


def test_a_server_bounds_the_tokens_of_a_text(model: omnima.Model) -> None:
    with omnima.serve(model, limits=Limits(max_tokens=8)) as server:
        status, answer, _ = ask(server, "/v1/completions", {"prompt": "a", "max_tokens": 9})
        assert status == 400 and "limit is 8" in answer["error"]["message"]
        body = {"messages": [{"role": "user", "content": "a"}], "temperature": 0}
        assert ask(server, "/v1/chat/completions", body)[1]["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("more,said", [({"port": -1}, "port is -1"), ({"port": 70000}, "70000")])
def test_a_port_that_is_none_is_said(model: omnima.Model, more: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        omnima.serve(model, **more)  # type: ignore[arg-type]


def test_a_model_without_a_tokenizer_is_not_served() -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        omnima.serve(omnima.Model.from_preset("nima", vocab_size=64))


@pytest.mark.parametrize("field", ["n", "body_bytes", "request_seconds"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: 0})


def test_a_request_that_takes_too_long_is_ended(model: omnima.Model) -> None:
    limits = Limits(request_seconds=0.001)
    with omnima.serve(model, limits=limits) as server:
        body = {"prompt": "a", "max_new_tokens": 450, "temperature": 0}
        late: list[str] = []

        def is_late() -> bool:  # on a busy machine a text may be done before the clock is looked at
            status, answer, _ = ask(server, "/generate", body)
            late.extend([answer["error"]["message"]] if status == 504 else [])
            return bool(late)

        assert until(is_late) and "0.001 seconds" in late[0]
        assert until(lambda: running(server) == 0)
        code = b'"code": "timeout"'

        def streams_late() -> bool:
            with connect(server, {"prompt": "a", "max_tokens": 450, "stream": True}) as channel:
                said = b""
                while not (code in said or b"[DONE]" in said) and (part := channel.recv(1 << 16)):
                    said += part
            return code in said

        assert until(streams_late)
