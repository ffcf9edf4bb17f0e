"""Our own step of an adapter, or of the whole model: one call into the core."""

from __future__ import annotations

from typing import Any

from omnima.benchmarking.systems import Step


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters that learn."""
    import omnima
    from omnima import _core

    in_blocks = job["method"] == "qlora"
    model = omnima.Model.from_pretrained(job["model"], dtype="nf4" if in_blocks else "float32")
    if job["method"] != "full":
        model.add_adapter("lora" if in_blocks else job["method"], **job["options"])
    options = _core.StepOptions()
    options.precision, options.lr, options.schedule = job["precision"], 3e-4, "constant"
    if job["task"] == "dpo":
        options.preference = "dpo"
    step = _core.TrainStep(model.core, options)

    def train(ids: Any, labels: Any) -> float:
        return step.run_batches([(ids, labels)]).loss

    def prefer(ids: Any, labels: Any) -> float:
        # A run asks for the reference once, of every pair: here each pair is met once.
        pairs = _pairs(ids, labels)
        pairs.set_reference(step.row_losses(pairs, 1))
        pairs.seek(0)
        return step.run(pairs).loss

    learning = model.num_trainable_parameters if model.adapters else model.num_parameters
    return prefer if job["task"] == "dpo" else train, learning


def _pairs(ids: Any, labels: Any) -> Any:
    """A loader of one batch: each sample has the token behind its last place, too."""
    import torch

    from omnima import _core

    rows, time = ids.shape
    samples = torch.cat([ids, labels[:, -1:]], 1)
    marks = torch.cat([torch.zeros(rows, 1, dtype=torch.bool), labels != -100], 1)
    return _core.SampleLoader(
        ids=samples.flatten().int(),
        supervised=marks.flatten().byte(),
        ends=torch.arange(1, rows + 1) * (time + 1),
        rows=rows,
        time=time,
        packed=False,
        sequential=True,
        paired=True,
    )
