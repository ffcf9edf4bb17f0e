"""float16 with dynamic loss scaling beside torch's GradScaler, and whole runs with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import _core
from omnima.errors import ConfigError
from omnima.planning.job import Job
from omnima.training import TrainConfig
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.verify import verify_resume

CONFIG = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
# Steps whose gradient overflows; the factor grows after three steps without.
OVERFLOWS = (0, 1, 6, 10, 11, 12)
STEPS = 20


def half_step(**values: Any) -> tuple[Any, Any]:
    decoder = _core.Decoder(_core.DecoderConfig(CONFIG), 3)
    options = _core.StepOptions()
    plain = {"precision": "fp16", "schedule": "constant", "clip_norm": 0.0, "weight_decay": 0.0}
    for name, value in {**plain, **values}.items():
        setattr(options, name, value)
    return decoder, _core.TrainStep(decoder, options)


def test_scales_and_weights_equal_those_of_torch_step_by_step() -> None:
    decoder, step = half_step(lr=0.01, loss_scale_growth=3, beta2=0.95)
    weights = step.state()["weights"]
    theirs = torch.nn.Parameter(weights.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    skipped = 0
    for number in range(STEPS):
        gradient = 0.1 * torch.randn(
            weights.numel(), generator=torch.Generator().manual_seed(number)
        )
        if number in OVERFLOWS:
            gradient[number] = float("inf")
        before = scaler.get_scale()
        result = step.apply_gradient(gradient)
        scaler.scale(torch.zeros(()))  # torch makes its factor at first use
        theirs.grad = gradient * scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        assert result.loss_scale == before
        assert result.skipped == (number in OVERFLOWS)
        skipped += result.skipped
        assert step.state()["loss_scale"].tolist() == [
            scaler.get_scale(),
            scaler.state_dict()["_growth_tracker"],
            skipped,
        ]
        assert torch.allclose(weights, theirs.detach(), atol=2e-6), number
    assert step.step == STEPS


def test_gradients_that_vanish_in_float16_are_kept_by_the_factor() -> None:
    ids = torch.arange(32).view(2, 16).remainder(37)
    norms = {}
    for name, factor in (("small", 2.0**-14), ("large", 2.0**16)):
        _, step = half_step(lr=0.0, loss_scale=factor)
        norms[name] = step.run_batches([(ids, ids)]).grad_norm
    _, exact = half_step(lr=0.0, precision="fp32")
    wanted = exact.run_batches([(ids, ids)]).grad_norm
    assert norms["large"] == pytest.approx(wanted, rel=5e-3)
    assert abs(norms["small"] - wanted) > 0.05 * wanted  # most of its digits are lost


def test_a_run_resumes_exactly_and_records_its_factor(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = small(precision="fp16", loss_scale=2.0**24, loss_scale_growth=2)
    assert verify_resume(recipe)["identical"]
    run = train(recipe, overwrite=True)
    assert run.history[0]["skipped"] and run.history[0]["loss_scale"] == 2.0**24
    scales = [each["loss_scale"] for each in run.history]
    assert scales[1] == 2.0**23
    assert run.summary["val_loss"] > 0
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    kept = _core.read_safetensors(str(Path(found.path) / "optimizer.safetensors"))
    assert kept["loss_scale"][2] == sum(each["skipped"] for each in run.history)
    choice = json.loads((tmp_path / "run" / "precision.json").read_text(encoding="utf-8"))
    assert choice["precision"] == "fp16"


def test_float16_learns_as_float32_does(small: Callable[..., Recipe]) -> None:
    losses = {
        name: train(small(precision=name, steps=16, lr=5e-3), overwrite=True).summary["val_loss"]
        for name in ("fp32", "fp16")
    }
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=1e-2)


def test_a_mixture_of_experts_steps_in_float16_as_in_float32() -> None:
    experts = {"num_experts": 4, "shared_expert_intermediate_size": 16, "expert_capacity": 1.5}
    ids = torch.randint(37, (3, 16), generator=torch.Generator().manual_seed(1))
    results = {}
    for precision in ("fp32", "fp16"):
        options = _core.StepOptions()
        options.precision, options.schedule, options.lr = precision, "constant", 1e-2
        decoder = _core.Decoder(_core.DecoderConfig({**CONFIG, **experts}), 3)
        step = _core.TrainStep(decoder, options)
        results[precision] = [step.run_batches([(ids, torch.roll(ids, -1, 1))]) for _ in range(6)]
    for exact, half in zip(results["fp32"], results["fp16"], strict=True):
        assert not half.skipped
        assert half.loss == pytest.approx(exact.loss, rel=5e-3)
        assert half.grad_norm == pytest.approx(exact.grad_norm, rel=2e-2)
        assert half.balance_loss == pytest.approx(exact.balance_loss, rel=1e-2)
        assert half.router_z_loss == pytest.approx(exact.router_z_loss, rel=1e-2)
    assert results["fp16"][-1].loss < results["fp16"][0].loss


def test_wrong_factors_and_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match="loss_scale is 0"):
        TrainConfig(steps=1, precision="fp16", loss_scale=0.0)
    with pytest.raises(ConfigError, match="fp32, bf16 or fp16, not 'fp8'"):
        Job(model=None, rows=1, context=8, precision="fp8")  # type: ignore[arg-type]
