"""Our own step of an adapter: one call into the core."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters that learn."""
    import omnima
    from omnima import _core

    model = omnima.Model.from_pretrained(job["model"])
    model.add_adapter(job["method"], rank=job["rank"], alpha=2 * job["rank"])
    options = _core.StepOptions()
    options.precision, options.lr, options.schedule = job["precision"], 3e-4, "constant"
    step = _core.TrainStep(model.core, options)

    def train(ids: Any, labels: Any) -> float:
        return step.run_batches([(ids, labels)]).loss

    return train, model.num_trainable_parameters
