"""Our own step: one call into the core."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters."""
    from omnima import _core

    decoder = _core.Decoder(_core.DecoderConfig(job["shape"]["model"]), job["seed"])
    options = _core.StepOptions()
    options.precision = job["precision"]
    options.lr = 3e-4
    options.schedule = "constant"
    step = _core.TrainStep(decoder, options)

    def train(ids: Any, labels: Any) -> float:
        return step.run_batches([(ids, labels)]).loss

    def evaluate(ids: Any, labels: Any) -> float:
        loss, tokens = step.evaluate_batches([(ids, labels)])
        return loss / tokens

    return (train if job["task"] == "train" else evaluate), decoder.num_parameters()
