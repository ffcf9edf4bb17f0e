"""Requests that a fuzzer makes of the interface's own description: none is answered with 5xx, and
afterwards nothing is left running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

import omnima
from omnima.server import Limits, Server

from .http import ask, running, until

# `OMNIMA_FUZZ_EXAMPLES=2000` asks a few thousand times more.
EXAMPLES = int(os.environ.get("OMNIMA_FUZZ_EXAMPLES", "12"))


@pytest.fixture(scope="module")
def fuzzed(model: omnima.Model) -> Iterator[Server]:
    with omnima.serve(model, name="tiny", limits=Limits(max_tokens=16, n=3)) as server:
        yield server
        assert until(lambda: running(server) == 0)
        assert ask(server, "/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_by_a_failure_of_ours(fuzzed: Server, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(fuzzed.url + "/openapi.json")
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        tried.add(operation.path)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=EXAMPLES < 100,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            answer = case.call(timeout=120)
            assert answer.status_code < 500, answer.text
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        try:
            check()
        except Unsatisfiable:  # a route without parameters has no wrong ones
            assert mode is GenerationMode.NEGATIVE and operation.method == "get"
    assert {"/v1/completions", "/v1/chat/completions", "/v1/embeddings"} <= tried
