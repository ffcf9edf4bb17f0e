"""Conversations as chat templates take them, and the figures of an engine that is away."""

from __future__ import annotations

import json
from typing import Any

import pytest

import omnima
from omnima.server import Limits, schemas
from omnima.server.conversation import ids_of
from omnima.server.errors import RequestError
from omnima.server.metrics import Metrics
from omnima.tokenizers.chat_default import ensure_template


def asked(*messages: Any, **more: Any) -> schemas.ChatRequest:
    return schemas.parsed(schemas.ChatRequest, json.dumps({"messages": messages, **more}).encode())


@pytest.mark.parametrize(
    "arguments,written",
    [
        ('{"zone": "é"}', '{"zone": "é"}'),
        ("no JSON", '"no JSON"'),
        ("[1]", '"[1]"'),
        ("[" * 100_000, None),
    ],
    ids=["object", "words", "list", "deep"],
)
def test_arguments_of_earlier_calls_are_objects_where_they_are_json(
    model: omnima.Model, arguments: str, written: str | None
) -> None:
    assert model.tokenizer is not None
    call = {"id": "1", "function": {"name": "now", "arguments": arguments}}
    body = asked({"role": "assistant", "tool_calls": [call]})
    text = model.tokenizer.decode(ids_of(model.tokenizer, body.messages, Limits()))
    expected = json.dumps(arguments) if written is None else written
    assert f'<tool_call>{{"name": "now", "arguments": {expected}}}</tool_call>' in text


def test_a_template_that_knows_no_tools_is_offered_none() -> None:
    tokenizer = omnima.Tokenizer.train(["to be"], "byte")
    ensure_template(tokenizer)
    body = asked(
        {"role": "user", "content": "a"}, tools=[{"type": "function", "function": {"name": "now"}}]
    )
    with pytest.raises(RequestError, match="knows no tools") as found:
        ids_of(tokenizer, body.messages, Limits(), body.tools)
    assert found.value.param == "tools"


def test_figures_say_when_the_engine_is_away() -> None:
    metrics = Metrics("tiny")
    stats = {"running": 3.0, "blocks_in_use": 1.0, "blocks_total": 4.0}
    for found, up in ((stats, 1), (None, 0)):
        lines = metrics.text(found, 2).decode().splitlines()
        assert f'omnima:engine_up{{model_name="tiny"}} {up}.0' in lines
        # What was known last stays where nothing newer is.
        assert 'omnima:num_requests_running{model_name="tiny"} 3.0' in lines
        assert 'omnima:kv_cache_usage_perc{model_name="tiny"} 0.25' in lines
        assert 'omnima:engine_restarts{model_name="tiny"} 2.0' in lines
