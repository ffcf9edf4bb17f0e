"""`Model.quantize`, and the perplexity of any model that we can read."""

from __future__ import annotations

from typing import Any


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Return what quantizing the job's model told."""
    import torch

    from omnima.model import Model

    torch.set_num_threads(job["threads"])
    model = Model.from_pretrained(job["model"])
    report = model.quantize(
        job["to"], job["method"], job["group_size"], calibration=job["data"]
    ).as_dict()
    assert model.quantization is not None
    return report | {"group_size": model.quantization.settings["group_size"]}


def measured(job: dict[str, Any]) -> float:
    """Return the perplexity of a model on the job's ids."""
    import torch

    from omnima.model import Model
    from omnima.quantization.text import perplexity

    torch.set_num_threads(job["threads"])
    return perplexity(Model.from_pretrained(job["model"]), torch.tensor(job["ids"]))
