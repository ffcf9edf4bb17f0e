"""Making a model small: int8, int4 and nf4, by rounding, GPTQ or AWQ."""

from __future__ import annotations

from omnima.quantization.model import Report, quantize
from omnima.quantization.plan import METHODS, TARGETS, Plan, plan

__all__ = ["METHODS", "TARGETS", "Plan", "Report", "plan", "quantize"]
