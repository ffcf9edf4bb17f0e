"""Models of transformers with drawn weights, and how far tensors are from each other."""

from __future__ import annotations

from typing import Any

import torch


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference as a share of the largest element of `b`."""
    return ((a - b).abs().max() / b.abs().max()).item()


def drawn(family: str, fields: dict[str, Any]) -> Any:
    """A `…ForCausalLM` of transformers; its norms too, whose constants would hide a mix-up."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model
