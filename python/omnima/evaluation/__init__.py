"""Measuring a model: loss, perplexity and bits per byte on held-out text."""

from __future__ import annotations

from omnima.evaluation.held_out import Score, score

__all__ = ["Score", "score"]
