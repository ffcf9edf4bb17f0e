"""Foresight: what a run will need and take, here or elsewhere, and what larger ones reach."""

from __future__ import annotations

from omnima.planning.calibration import Calibration, calibrate
from omnima.planning.job import Job
from omnima.planning.machine import Machine, read_machine, this_machine
from omnima.planning.memory import generation_bytes, memory_by_part
from omnima.planning.prediction import (
    Plan,
    advice,
    largest_context,
    largest_rows,
    needed_bytes,
    plan,
    what_fits,
    with_rates,
)
from omnima.planning.scaling import Forecast, RunPoint, ScalingFit, fit_runs, read_run

__all__ = [
    "Calibration",
    "Forecast",
    "Job",
    "Machine",
    "Plan",
    "RunPoint",
    "ScalingFit",
    "advice",
    "calibrate",
    "fit_runs",
    "generation_bytes",
    "largest_context",
    "largest_rows",
    "memory_by_part",
    "needed_bytes",
    "plan",
    "read_machine",
    "read_run",
    "this_machine",
    "what_fits",
    "with_rates",
]
