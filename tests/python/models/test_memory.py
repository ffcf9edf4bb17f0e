"""Closing a model gives its memory back, also where something still holds the model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import omnima
from omnima.errors import OmnimaError

BIG = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' view of memory")
def test_closing_frees_the_memory_of_weights_gradients_and_optimizer() -> None:
    from omnima import _core

    outputs = []  # as a notebook keeps whatever a cell shows
    ids = torch.arange(32).repeat(2, 1)
    sizes = []
    for _ in range(3):
        before = resident()
        model = omnima.Model.from_config({"vocab_size": 512, **BIG, "max_position_embeddings": 64})
        step = _core.TrainStep(model.core, _core.StepOptions())
        step.run_batches([(ids, ids)])
        outputs.append(model)
        weights = 4 * model.num_parameters
        assert resident() - before > 3.5 * weights  # with the gradient and two moments
        del step
        model.close()
        sizes.append(resident())
        assert sizes[-1] - before < (weights if len(sizes) == 1 else weights // 4)
    assert sizes[-1] - sizes[0] < weights // 4  # and nothing piles up


def test_a_closed_model_says_so() -> None:
    model = omnima.Model.from_preset("nima", vocab_size=64)
    parameter = model.named_parameters()[0][1]
    kept = parameter.detach().clone()
    model.close()
    model.close()
    with pytest.raises(OmnimaError, match="closed: its weights are gone"):
        model(torch.tensor([[1]]))
    with pytest.raises(OmnimaError, match="closed"):
        model.generate([1, 2])
    assert torch.equal(parameter, kept)  # what was taken out of it lives on
