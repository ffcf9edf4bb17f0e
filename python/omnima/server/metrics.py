"""Figures for Prometheus, under the names that vLLM uses, with our prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from omnima.server.service import Run

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 30, 60)
_LONG = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
# Of the scheduler's figures: name here, what it says.
_GAUGES = {
    "running": ("num_requests_running", "Texts that are being written."),
    "waiting": ("num_requests_waiting", "Texts that wait for a place."),
    "blocks_in_use": ("kv_cache_blocks", "Blocks of keys and values that these texts hold."),
    "blocks_kept": ("kv_cache_blocks_kept", "Blocks that wait for prompts that begin alike."),
}


class Metrics:
    """Counters of one server; each server has its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._gauges = {key: self._gauge(*said) for key, said in _GAUGES.items()}
        self._cache = self._gauge(
            "kv_cache_usage_perc", "Share of the blocks in use; 1 is all; 0 where none is the last."
        )
        self._restarts = self._gauge("engine_restarts", "How often the engine was started anew.")
        self._up = self._gauge("engine_up", "1: the engine answers.")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.")
        self._new = self._counter("generation_tokens", "Tokens that were written.")
        self._asked = self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self._known = self._counter("prefix_cache_hits", "Tokens that it knew.")
        self._success = Counter(
            "omnima:request_success",
            "Texts that were written.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._errors = Counter(
            "omnima:request_errors",
            "Requests that were answered with an error.",
            ["model_name", "status"],
            registry=self.registry,
        )
        self._first = self._histogram("time_to_first_token_seconds", "To the first.", _SECONDS)
        self._each = self._histogram(
            "request_time_per_output_token_seconds", "Mean of a request.", _SECONDS
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "To the last.", _LONG)
        self._prompts = self._histogram("request_prompt_tokens", "Of a request.", _TOKENS)
        self._texts = self._histogram("request_generation_tokens", "Of a request.", _TOKENS)

    def finished(self, run: Run) -> None:
        """Count a request that has ended."""
        timing, tokens = run.timing, run.new_tokens
        self._prompt.inc(run.prompt_tokens)
        self._new.inc(tokens)
        self._asked.inc(run.prompt_tokens)
        self._known.inc(run.cached_tokens)
        self._prompts.observe(run.prompt_tokens)
        self._texts.observe(tokens)
        self._whole.observe(timing.ended - timing.began)
        if timing.first:
            self._first.observe(timing.first - timing.began)
            if tokens > 1:
                self._each.observe((timing.ended - timing.first) / (tokens - 1))
        for choice in run.choices:
            self._success.labels(self._model, choice.reason or "error").inc()

    def failed(self, status: int) -> None:
        """Count a request that was answered with an error."""
        self._errors.labels(self._model, str(status)).inc()

    def text(self, stats: Mapping[str, float] | None, restarts: int) -> bytes:
        """Return all figures as Prometheus reads them; None: the engine does not answer."""
        self._up.set(stats is not None)
        self._restarts.set(restarts)
        if stats is not None:
            for key, gauge in self._gauges.items():
                gauge.set(stats.get(key, 0))
            total = stats.get("blocks_total", 0)
            self._cache.set(stats.get("blocks_in_use", 0) / total if total else 0)
        return bytes(generate_latest(self.registry))

    def _gauge(self, name: str, meaning: str) -> Gauge:
        gauge = Gauge(f"omnima:{name}", meaning, ["model_name"], registry=self.registry)
        return gauge.labels(self._model)

    def _counter(self, name: str, meaning: str) -> Counter:
        counter = Counter(f"omnima:{name}", meaning, ["model_name"], registry=self.registry)
        return counter.labels(self._model)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            f"omnima:{name}", meaning, ["model_name"], buckets=buckets, registry=self.registry
        )
        return histogram.labels(self._model)
