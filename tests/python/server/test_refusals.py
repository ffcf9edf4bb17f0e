"""What is refused, with an error in OpenAI's form that names field, value and limit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from omnima.server import Server, schemas

from .http import ask

USER = {"role": "user", "content": "a"}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [USER], "max_tokens": 2, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "a", "max_tokens": 2, **more}


def structured(**format: Any) -> dict[str, Any]:
    return chat(response_format=format)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


NAMED = tool("roll")
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
BAD: list[tuple[str, Any, int, str | None, str]] = [
    ("completions", text(max_tokens=-1), 400, "max_tokens", "-1"),
    ("completions", text(max_tokens=10**9), 400, "max_tokens", "limit is 512"),
    ("completions", text(n=5), 400, "n", "limit is 4"),
    ("completions", text(n=4, prompt=["a"] * 20), 400, "n", "80 texts in all; the limit is 64"),
    ("completions", text(prompt=["a"] * 33), 400, "prompt", "limit is 32"),
    ("completions", text(prompt=[]), 400, "prompt", "empty"),
    ("completions", text(prompt=[[]]), 400, "prompt", "empty"),
    ("completions", text(prompt=[1, 300]), 400, "prompt", "the id 300; ids go from 0 to 299"),
    ("completions", text(prompt="to be " * 600), 400, None, "context of 512"),
    ("completions", text(stop=["a"] * 17), 400, "stop", "limit is 16"),
    ("completions", text(stop="a" * 257), 400, "stop", "limit is 256"),
    ("completions", text(stop=""), 400, "stop", "empty"),
    ("completions", text(temperature="hot"), 400, "temperature", "'hot'"),
    ("completions", text(seed=-(2**63) - 1), 400, "seed", "-92233720368"),
    ("completions", text(logit_bias={"1": 101}), 400, "logit_bias", "token 1 is 101; they go from"),
    ("completions", text(logit_bias={"one": 5}), 400, "logit_bias", "'one' is no token id"),
    ("completions", text(logit_bias={"1": "a"}), 400, "logit_bias", "'1' is no number"),
    ("completions", text(logit_bias={"300": 5}), 400, "logit_bias", "id 300; ids go from 0 to 299"),
    ("completions", text(frequency_penalty=2.5), 400, "frequency_penalty", "2.5"),
    ("completions", text(presence_penalty="a"), 400, "presence_penalty", "'a'"),
    ("completions", text(suffix="end"), 400, "suffix", "fill in the middle"),
    ("completions", text(echo=True, logprobs=0), 400, "echo", "with logprobs"),
    ("completions", text(echo="yes"), 400, "echo", "'yes'"),
    ("completions", text(best_of=2), 400, "best_of", "does not have it"),
    ("completions", text(stream_options={}), 400, "stream_options", "stream: true"),
    ("completions", text(temprature=1), 400, "temprature", "no such field"),
    ("completions", text(model="other"), 404, "model", "there is tiny, bard"),
    ("completions", text(model="../../etc/passwd"), 404, "model", "there is tiny, bard"),
    ("completions", b'{"prompt": "a"', 400, None, "no JSON"),
    ("completions", b'{"prompt": NaN}', 400, "prompt", "nan"),
    ("completions", b'{"prompt": "\\ud800"}', 400, None, "no JSON"),
    ("completions", b"\xff", 400, None, "no JSON"),
    ("completions", b"[" * 100_000, 400, None, "no JSON"),
    ("completions", b"[]", 400, "the body", "object"),
    ("chat/completions", {"model": "tiny"}, 400, "messages", "required"),
    ("chat/completions", chat(messages=[]), 400, "messages", "at least 1"),
    ("chat/completions", chat(messages=[{"role": "king", "content": "a"}]), 400, "messages.0", ""),
    ("chat/completions", chat(messages=[IMAGE]), 400, "messages.0.content.0.type", "image_url"),
    ("chat/completions", chat(messages=[USER] * 1025), 400, "messages", "limit is 1024"),
    ("chat/completions", chat(top_logprobs=2), 400, "top_logprobs", "logprobs: true"),
    ("chat/completions", chat(max_completion_tokens=2), 400, "max_tokens", "give one"),
    ("chat/completions", chat(tool_choice="required"), 400, "tools", "no tools"),
    ("chat/completions", chat(reasoning_effort="high"), 400, "reasoning_effort", "high"),
    *(
        ("chat/completions", chat(chat_template_kwargs=each), 400, "chat_template_kwargs", said)
        for each, said in (({"a": []}, "'a'"), ({str(i): 1 for i in range(65)}, "64"))
    ),
    *(
        (
            "chat/completions",
            chat(chat_template_kwargs={"style": "old", name: value}),
            400,
            f"chat_template_kwargs.{name}",
            f"got {value!r}",
        )
        for name, value in (
            ("messages", "x"),
            ("tools", "x"),
            ("documents", "x"),
            ("add_generation_prompt", False),
            ("tokenize", False),
            ("sanitize_control_tokens", False),
            ("self", 1),
            ("bos_token", "<|im_end|>"),
            ("eos_token", "<|im_end|>"),
            ("pad_token", "x"),
            ("unk_token", "x"),
            ("raise_exception", "x"),
            ("strftime_now", "x"),
            ("namespace", "x"),
            ("range", 1),
            ("continue_final_message", True),
        )
    ),
    ("chat/completions", chat(**{str(i): 1 for i in range(65)}), 400, "the body", "68 fields"),
    ("chat/completions", structured(type="regex", pattern="("), 400, None, "unclosed group"),
    ("chat/completions", structured(type="regex", pattern="a" * 70_000), 400, None, "limit"),
    (
        "chat/completions",
        structured(type="choice", choices=[]),
        400,
        "response_format",
        "0 choices",
    ),
    ("chat/completions", structured(type="choice", choices=["a"] * 1025), 400, None, "1025"),
    (
        "chat/completions",
        structured(type="json_schema", json_schema={"schema": {"type": "objekt"}}),
        400,
        None,
        "objekt",
    ),
    (
        "chat/completions",
        structured(type="json_schema", json_schema={"schema": {"$ref": "http://x/y"}}),
        400,
        "response_format",
        "http://x/y",
    ),
    (
        "chat/completions",
        structured(
            type="json_schema",
            json_schema={"schema": {"type": "string", "pattern": "a" + "{99}" * 2500}},
        ),
        400,
        "response_format",
        "limit is 20000",
    ),
    ("chat/completions", chat(tool_choice=NAMED, tools=[tool("now")]), 400, "tool_choice", "roll"),
    (
        "chat/completions",
        chat(tool_choice="required", tools=[tool("now")], response_format={"type": "json_object"}),
        400,
        "response_format",
        "exclude each other",
    ),
    ("chat/completions", structured(type="choice", choices=["a", ""]), 400, None, "not empty"),
    ("embeddings", {"input": [], "model": "tiny"}, 400, "input", "empty"),
    ("embeddings", {"input": "to be " * 600, "model": "tiny"}, 400, "input", "holds 512"),
    ("embeddings", {"input": ["a"] * 129, "model": "tiny"}, 400, "input", "limit is 128"),
]


@pytest.mark.parametrize(
    "route,body,status,param,said", BAD, ids=[f"{i}-{each[3]}" for i, each in enumerate(BAD)]
)
def test_what_is_wrong_is_said(
    server: Server, route: str, body: Any, status: int, param: str | None, said: str
) -> None:
    found, answer, _ = ask(server, f"/v1/{route}", body)
    assert found == status, answer
    assert set(answer) == {"error"}
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]
    if param is not None:
        assert error["param"] == param and param in error["message"]
    assert "0x" not in error["message"]  # no addresses


@pytest.mark.parametrize(
    "kind,body",
    [
        (schemas.CompletionRequest, b'{"prompt":[%s]}' % b",".join([b"null"] * 100_000)),
        (schemas.CompletionRequest, b'{"prompt":[[%s]]}' % b",".join([b"null"] * 100_000)),
        (schemas.CompletionRequest, b'{"prompt":"a","stop":[%s]}' % b",".join([b"0"] * 100_000)),
        (schemas.ChatRequest, b'{"messages":[%s]}' % b",".join([b"{}"] * 100_000)),
        (
            schemas.ChatRequest,
            b'{"messages":[{"role":"user","content":[%s]}]}' % b",".join([b"{}"] * 100_000),
        ),
        (
            schemas.ChatRequest,
            b'{"messages":[{"role":"user","content":"a"}],"tools":[%s]}'
            % b",".join([b"{}"] * 100_000),
        ),
        (
            schemas.ChatRequest,
            b'{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{%s}}'
            % b",".join(b'"%d":[]' % i for i in range(100_000)),
        ),
        (schemas.EmbeddingRequest, b'{"input":[%s]}' % b",".join([b"null"] * 100_000)),
        (
            schemas.GenerateRequest,
            b'{"prompt":"a",%s}' % b",".join(b'"%d":0' % i for i in range(100_000)),
        ),
    ],
    ids=range(9),
)
def test_of_many_wrong_items_the_first_is_enough(kind: type[schemas.Strict], body: bytes) -> None:
    """An error for each of a million items would take seconds and a gigabyte."""
    with pytest.raises(ValidationError) as found:
        kind.model_validate_json(body)
    assert found.value.error_count() < 10


def test_what_has_no_effect_may_be_sent_empty(server: Server) -> None:
    body = chat(
        logit_bias={}, frequency_penalty=0.0, user="me", metadata={"a": "b"}, store=False, n=1
    )
    assert ask(server, "/v1/chat/completions", body)[0] == 200
    assert ask(server, "/v1/completions", text(suffix="", echo=None))[0] == 200


def test_what_openai_takes_is_taken(server: Server) -> None:
    for more in ({"seed": -1}, {"best_of": 1}, {"best_of": 2, "n": 2}):
        assert ask(server, "/v1/completions", text(**more))[0] == 200, more
    for more in ({"service_tier": "flex"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        assert ask(server, "/v1/chat/completions", chat(**more))[0] == 200, more
    body = text(max_tokens=20)

    def written(**more: Any) -> str:
        found: str = ask(server, "/v1/completions", {**body, **more})[1]["choices"][0]["text"]
        return found

    assert written(top_p=0, seed=7) == written(temperature=0) != written(seed=7)


def test_other_routes_and_methods_are_errors_of_the_same_form(server: Server) -> None:
    for path, body, status in (("/v2/models", None, 404), ("/v1/completions", None, 405)):
        found, answer, _ = ask(server, path, body)
        assert found == status and answer["error"]["message"]
    assert ask(server, "/v1/models/..%2f..%2fetc")[0] == 404


def test_control_tokens_of_users_are_plain_text(server: Server) -> None:
    def ids(content: str) -> list[int]:
        message = {"role": "user", "content": content}
        found: list[int] = ask(server, "/tokenize", {"messages": [message]})[1]["tokens"]
        return found

    assert ids("<|im_end|>").count(4) == ids("hello").count(4) == 1
    plain = ask(server, "/tokenize", {"prompt": "<|im_end|>"})[1]
    assert 4 not in plain["tokens"] and plain["count"] == len(plain["tokens"])


def test_plain_generation(server: Server) -> None:
    body = {"prompt": "To be", "max_new_tokens": 9, "temperature": 0}
    status, answer, _ = ask(server, "/generate", body)
    assert status == 200 and answer["new_tokens"] == 9 and answer["finish_reason"] == "length"
    assert (
        ask(server, "/generate", {**body, "stop": answer["text"][3]})[1]["text"]
        == (answer["text"][: answer["text"].index(answer["text"][3])])
    )
