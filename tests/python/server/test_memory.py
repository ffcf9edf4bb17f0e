"""The memory for keys and values is known before the first request, and nothing goes beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima.errors import ConfigError
from omnima.server import EngineOptions, memory
from omnima.server.engine import Engine
from omnima.server.worker import Opening

from .http import ask

GIB = 1 << 30


def engine_with(model: omnima.Model, **options: Any) -> tuple[int, dict[str, float]]:
    """The bound of an engine, and what its scheduler makes of it."""
    engine = Engine(model, EngineOptions(**options), [2])
    try:
        return engine.memory_bytes, engine.stats()
    finally:
        engine.close()


def leave_free(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 20 * GIB) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    monkeypatch.setattr(memory, "memory_of", lambda *_: {"total_bytes": total, "free_bytes": free})


def test_by_default_there_is_room_for_all_texts_at_once(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(monkeypatch, 10 * GIB)
    page = model.engine.page_bytes()
    found, stats = engine_with(model, max_sequences=3, kept_bytes=10 * page)
    assert found == (3 * 512 // 32 + 10) * page  # the model's context has 512 tokens
    assert stats["blocks_total"] == 58 and stats["block_bytes"] == page
    # Two layers, two heads of keys and of values with 16 numbers, 32 tokens.
    assert page == 2 * 2 * 2 * 16 * 32 * 4
    half, _ = engine_with(model, max_sequences=3, kept_bytes=0, cache_precision="bf16")
    assert half == 3 * 512 // 32 * page // 2


def test_without_mocks_the_machine_is_asked(model: omnima.Model) -> None:
    found, stats = engine_with(model)
    assert 0 < stats["blocks_total"] * stats["block_bytes"] <= found


def test_where_little_is_free_a_reserve_stays(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(monkeypatch, 2 * GIB + (1 << 20))
    assert engine_with(model)[0] == 1 << 20  # a tenth of 20 GiB is not for texts
    leave_free(monkeypatch, 300 << 20, total=GIB)
    assert engine_with(model)[0] == 44 << 20  # and no less than 256 MiB
    leave_free(monkeypatch, 256 << 20, total=GIB)
    with pytest.raises(ConfigError, match=r"268 MB of 1\.1 GB of memory on cpu are left"):
        engine_with(model)


def test_what_is_asked_for_wins(model: omnima.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_free(monkeypatch, 0)
    found, stats = engine_with(model, memory_bytes=1 << 20)
    assert found == 1 << 20 and stats["blocks_total"] == (1 << 20) // model.engine.page_bytes()
    found, stats = engine_with(model, memory_bytes=0)
    assert found == 0 and stats["blocks_total"] == 0  # no bound


def test_a_request_that_can_never_fit_is_refused(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = model.engine.page_bytes()
    leave_free(monkeypatch, 2 * GIB + 4 * page)  # four pages: 128 tokens of the 512
    with omnima.serve(model) as server:
        assert ask(server.url, "/health")[1]["memory_bytes"] == 4 * page
        body = {"prompt": "To be", "temperature": 0}
        status, answer, _ = ask(server.url, "/v1/completions", {**body, "max_tokens": 300})
        assert status == 400
        assert f"(4 pages of {page} bytes): ask for less" in answer["error"]["message"]
        # Of those that fit alone and not together each waits for its turn.
        status, answer, _ = ask(server.url, "/v1/completions", {**body, "max_tokens": 90, "n": 4})
        assert status == 200 and len(answer["choices"]) == 4


def test_weights_that_are_yet_to_be_read_take_their_place_first(
    model: omnima.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system counts as free what a mapped file will take."""
    assert model.bytes_to_come == 0
    model.save_pretrained(tmp_path / "small")
    stored = omnima.Model.from_pretrained(tmp_path / "small", dtype="auto")
    assert stored.bytes_to_come == 4 * stored.num_parameters
    leave_free(monkeypatch, 2 * GIB + (1 << 20) + stored.bytes_to_come)
    assert engine_with(stored)[0] == 1 << 20
    # In bfloat16 they are in memory already, but copies of the matrices will be made.
    matrices = sum(each.numel() for _, each in model.named_parameters() if each.dim() > 1)
    rounded = omnima.Model.from_pretrained(tmp_path / "small", dtype="bfloat16")
    assert rounded.bytes_to_come == matrices * 3 // 2
    held = omnima.Model.from_pretrained(tmp_path / "small", dtype="bf16")
    assert 0 < held.bytes_to_come <= rounded.bytes_to_come


def test_a_gpu_that_cannot_serve_this_is_said(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="not on cuda: take --device cpu"):
        Opening("nowhere", {"poet": "nowhere"}, device="cuda").engine()
    monkeypatch.setattr(omnima.Model, "device", property(lambda _: "cuda:0"))
    if not omnima._core.has_gpu_kernels():
        with pytest.raises(ConfigError, match="from cuda:0: this omnima was built without CUDA"):
            engine_with(model)
    monkeypatch.setattr(omnima._core, "why_not_on_gpu", lambda _: "")
    with pytest.raises(ConfigError, match=r"on cuda:0\. Serve it on the CPU"):
        engine_with(model)  # which has adapters


def test_on_a_gpu_its_own_memory_counts(
    model: omnima.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = model.engine
    leave_free(monkeypatch, 0)
    monkeypatch.setattr(omnima.Model, "device", property(lambda _: "cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * GIB, 10 * GIB))
    options = EngineOptions(max_sequences=2)
    text = 512 // 32 * engine.page_bytes()
    assert memory.bytes_for_texts(model, engine, options) == 2 * text  # and nothing is kept there
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (GIB + 2 * text - 1, 10 * GIB))
    assert memory.bytes_for_texts(model, engine, options) == 2 * text - 1
