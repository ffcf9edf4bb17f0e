"""The step that one writes by hand for a PyTorch model: autocast, backward, clipping, AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnima.benchmarking.systems import Step


def step_of(
    job: dict[str, Any], model: Any, loss_of: Callable[[Any, Any], Any]
) -> tuple[Step, int]:
    """Return the step of a job for a module and its loss, and the number of parameters."""
    import torch

    parameters = [each for each in model.parameters() if each.requires_grad]
    count = sum(each.numel() for each in parameters)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bf16")

    if job["task"] == "evaluate":
        model.eval()

        def evaluate(ids: Any, labels: Any) -> float:
            with torch.no_grad(), autocast():
                return float(loss_of(ids, labels).item())

        return evaluate, count

    model.train()
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.1, fused=True)

    def train(ids: Any, labels: Any) -> float:
        with autocast():
            loss = loss_of(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return train, count
