"""Multi-token prediction beside plain PyTorch; saving, resuming and evaluating with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import omnima
from omnima import _core
from omnima.config import ModelConfig
from omnima.errors import ConfigError
from omnima.training.checkpoint import latest_checkpoint
from omnima.training.launch import train
from omnima.training.recipe import Recipe
from omnima.training.verify import verify_resume

SHAPE: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "positions": "learned",
}
Tensors = dict[str, torch.Tensor]


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def mlp(x: torch.Tensor, p: Tensors, name: str) -> torch.Tensor:
    gate = functional.silu(x @ p[f"{name}.gate_proj.weight"].T)
    return (gate * (x @ p[f"{name}.up_proj.weight"].T)) @ p[f"{name}.down_proj.weight"].T


def attention(x: torch.Tensor, p: Tensors, name: str, seen: torch.Tensor) -> torch.Tensor:
    heads = SHAPE["num_attention_heads"]
    q, k, v = (
        (x @ p[f"{name}.{part}_proj.weight"].T).unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in "qkv"
    )
    scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ p[f"{name}.o_proj.weight"].T


def reference_losses(
    p: Tensors, ids: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor, heads: int
) -> list[torch.Tensor]:
    """The summed losses of the next token and of each head, as the papers write them."""
    time = ids.shape[1]
    seen = torch.ones(time, time, dtype=torch.bool).tril()
    seen = (seen & (segments[:, :, None] == segments[:, None]))[:, None]
    place = torch.zeros_like(ids)
    for t in range(1, time):
        place[:, t] = torch.where(segments[:, t] == segments[:, t - 1], place[:, t - 1] + 1, 0)
    x = p["model.embed_tokens.weight"][ids] + p["model.embed_positions.weight"][place]
    for layer in range(SHAPE["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        x = x + attention(
            norm(x, p[f"{name}.input_layernorm.weight"]), p, f"{name}.self_attn", seen
        )
        x = x + mlp(norm(x, p[f"{name}.post_attention_layernorm.weight"]), p, f"{name}.mlp")
    losses = []
    for ahead in range(heads + 1):
        z = x
        if ahead:
            name = f"prediction_heads.{ahead - 1}"
            z = x + mlp(norm(x, p[f"{name}.norm.weight"]), p, f"{name}.mlp")
        logits = norm(z, p["model.norm.weight"]) @ p["model.embed_tokens.weight"].T
        total = torch.zeros(())
        for row in range(ids.shape[0]):
            for t in range(time - ahead):
                wanted = labels[row, t + ahead]
                if wanted != -100 and segments[row, t] == segments[row, t + ahead]:
                    total = total - logits[row, t].log_softmax(-1)[wanted]
        losses.append(total)
    return losses


def parameters(decoder: Any) -> Tensors:
    return {name: each.detach().clone() for name, each in decoder.named_parameters()}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(SHAPE["vocab_size"], (2, 12), generator=generator)
    labels = torch.roll(ids, -1, 1)
    labels[0, :3] = -100
    return ids, labels


def test_a_step_moves_along_the_gradient_of_plain_pytorch() -> None:
    decoder = _core.Decoder(_core.DecoderConfig({**SHAPE, "prediction_heads": 3}), 5)
    options = _core.StepOptions()
    plain = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    changes = {"lr": 1.0, "schedule": "constant", "clip_norm": 0.0, "prediction_weight": 0.9}
    for name, value in {**plain, **changes}.items():
        setattr(options, name, value)
    step = _core.TrainStep(decoder, options)
    before = parameters(decoder)
    ids, labels = batch(0)
    result = step.run_batches([(ids, labels)])

    leaves = {name: each.clone().requires_grad_() for name, each in before.items()}
    losses = reference_losses(leaves, ids, labels, torch.zeros_like(ids), 3)
    targets = int(labels.ne(-100).sum())
    torch.stack([losses[0], *(0.3 * each for each in losses[1:])]).sum().div(targets).backward()
    assert result.loss == pytest.approx(losses[0].item() / targets, rel=1e-5)
    for name, after in parameters(decoder).items():
        moved = before[name] - after
        assert torch.allclose(moved, leaves[name].grad, atol=2e-6), name


def test_the_loss_of_each_head_equals_plain_pytorch_within_documents() -> None:
    decoder = _core.Decoder(_core.DecoderConfig({**SHAPE, "prediction_heads": 2}), 5)
    ids, labels = batch(1)
    segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [1] * 3], dtype=torch.int32)
    wanted = reference_losses(parameters(decoder), ids, labels, segments, 2)[1:]
    counts = [
        sum(
            int(labels[row, t + ahead] != -100 and segments[row, t] == segments[row, t + ahead])
            for row in range(2)
            for t in range(12 - ahead)
        )
        for ahead in (1, 2)
    ]
    got = decoder.prediction_losses(ids, labels, segments)
    for one, total, count in zip(got.tolist(), wanted, counts):
        assert one == pytest.approx(total.item() / count, rel=1e-5)


def test_evaluation_and_logits_are_those_of_the_model_without_heads(tmp_path: Path) -> None:
    config = ModelConfig(**SHAPE, prediction_heads=2)
    model = omnima.Model.from_config(config, seed=1)
    assert config.num_parameters == model.num_parameters
    model.save_pretrained(tmp_path)
    alone = omnima.Model.from_pretrained(tmp_path)
    assert alone.config == config.replace(prediction_heads=0)
    ids, labels = batch(2)
    assert torch.equal(model(ids), alone(ids))
    scores = [
        _core.TrainStep(each.core, _core.StepOptions()).evaluate_batches([(ids, labels)])
        for each in (model, alone)
    ]
    assert scores[0] == scores[1]


def test_heads_resume_bit_for_bit_and_stay_out_of_the_model(
    small: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = small(packing="documents", prediction_weight=0.5)
    recipe = Recipe.from_layers(
        {**{key: value for key, value in recipe.values().items() if value is not None},
         "model": {**recipe.model, "prediction_heads": 2}, "ema_decay": 0.9}
    )  # fmt: skip
    assert verify_resume(recipe)["identical"]
    run = train(recipe, overwrite=True)
    assert run.summary["val_loss"] > 0
    found = latest_checkpoint(tmp_path / "run")
    assert found is not None
    kept = _core.read_safetensors(str(Path(found.path) / "optimizer.safetensors"))
    assert "prediction_heads.1.mlp.up_proj.weight" in kept
    for place in (Path(found.path) / "model", tmp_path / "run"):
        names = _core.read_safetensors(str(place / "model.safetensors"))
        assert not any(name.startswith("prediction_heads") for name in names)
    assert omnima.Model.from_pretrained(tmp_path / "run").config.prediction_heads == 0


def test_more_heads_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"look past the end of a context of 4 tokens"):
        ModelConfig(**{**SHAPE, "max_position_embeddings": 4}, prediction_heads=4)
