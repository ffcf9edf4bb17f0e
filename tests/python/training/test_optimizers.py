"""Every optimizer against torch's, or against its paper written down plainly, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from omnima import _core
from omnima.training.config import OPTIMIZERS, SCHEDULES

CONFIG = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 56,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "tie_word_embeddings": False,
}
LR, DECAY, STEPS = 0.02, 0.3, 8
Tensors = dict[str, torch.Tensor]


def train_step(optimizer: str, **values: Any) -> tuple[Any, Any]:
    decoder = _core.Decoder(_core.DecoderConfig(CONFIG), 3)
    options = _core.StepOptions()
    plain = {"schedule": "constant", "clip_norm": 0.0, "lr": LR, "weight_decay": DECAY}
    for name, value in {"optimizer": optimizer, **plain, **values}.items():
        setattr(options, name, value)
    return decoder, _core.TrainStep(decoder, options)


def parameters(decoder: Any) -> Tensors:
    return {name: each.detach() for name, each in decoder.named_parameters()}


def gradients(decoder: Any, seed: int) -> tuple[torch.Tensor, Tensors]:
    """A flat gradient, and its parts by name."""
    named = parameters(decoder)
    size = sum(each.numel() for each in named.values())
    flat = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.1
    return flat, {
        name: flat[each.storage_offset() :][: each.numel()].view(each.shape)
        for name, each in named.items()
    }


def decay_of(parameter: torch.Tensor) -> float:
    return DECAY if parameter.dim() > 1 else 0.0


def distance(
    optimizer: str,
    reference: Callable[[Tensors], Callable[[int, Tensors], None]],
    **values: Any,
) -> float:
    """Take steps with both; return the largest mean difference of a parameter after any of them.

    `reference` takes copies of the weights and returns what updates them in place, given the step
    (from 1) and the gradients. A number that is not finite is returned as such.
    """
    decoder, step = train_step(optimizer, **values)
    copies = {name: each.clone() for name, each in parameters(decoder).items()}
    update = reference(copies)
    found = []
    for number in range(1, STEPS + 1):
        flat, named = gradients(decoder, number)
        step.apply_gradient(flat)
        update(number, named)
        found += [(own - copies[name]).abs().mean() for name, own in parameters(decoder).items()]
    return float(torch.stack(found).max())


def by_torch(make: Callable[[list[dict[str, Any]]], list[Any]]) -> Any:
    """A reference from torch.optim; `make` gets a group of one parameter each, with its name."""

    def reference(weights: Tensors) -> Callable[[int, Tensors], None]:
        leaves = {name: torch.nn.Parameter(each) for name, each in weights.items()}
        groups = [
            {"params": [leaf], "weight_decay": decay_of(leaf), "name": name}
            for name, leaf in leaves.items()
        ]
        optimizers = make(groups)

        def update(_: int, named: Tensors) -> None:
            for name, leaf in leaves.items():
                leaf.grad = named[name].clone()
            for each in optimizers:
                each.step()

        return update

    return reference


def test_the_registries_are_the_options() -> None:
    assert tuple(_core.optimizer_names()) == OPTIMIZERS
    assert tuple(_core.schedule_names()) == SCHEDULES


def test_adamw_is_torchs() -> None:
    make = by_torch(lambda groups: [torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))])
    assert distance("adamw", make, beta1=0.9, beta2=0.95) <= 2e-6


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov: bool) -> None:
    make = by_torch(
        lambda groups: [torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=nesterov)]
    )
    assert distance("sgd", make, momentum=0.9, nesterov=nesterov) <= 2e-6


@pytest.mark.parametrize("lr", [0.02, 0.9])  # the second is cut by 1 / sqrt(step)
def test_adafactor_is_torchs(lr: float) -> None:
    adafactor = pytest.importorskip("torch.optim").Adafactor
    make = by_torch(lambda groups: [adafactor(groups, lr=lr)])
    assert distance("adafactor", make, lr=lr) <= 1e-5


def is_hidden(group: dict[str, Any]) -> bool:
    weight = group["params"][0]
    return weight.dim() == 2 and "embed" not in group["name"] and "lm_head" not in group["name"]


def test_muon_is_torchs() -> None:
    def make(groups: list[dict[str, Any]]) -> list[Any]:
        hidden = [each for each in groups if is_hidden(each)]
        others = [each for each in groups if not is_hidden(each)]
        assert len(hidden) == 7 and len(others) == 5
        muon = torch.optim.Muon(hidden, lr=LR, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(others, lr=LR, betas=(0.9, 0.95))]

    # torch iterates in bfloat16, whatever the parameters are.
    assert distance("muon", by_torch(make), precision="bf16") <= 2e-4


def test_muon_in_float32_makes_matrices_nearly_orthogonal() -> None:
    """Jordan et al. 2024, with the coefficients and the five iterations of the post."""

    def reference(weights: Tensors) -> Callable[[int, Tensors], None]:
        mean = {name: torch.zeros_like(each) for name, each in weights.items()}

        def update(_: int, named: Tensors) -> None:
            for name, weight in weights.items():
                if not is_hidden({"params": [weight], "name": name}):
                    continue
                mean[name] = 0.95 * mean[name] + 0.05 * named[name]
                ahead = 0.05 * named[name] + 0.95 * mean[name]
                x = ahead / ahead.norm()
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                weight *= 1 - LR * DECAY
                weight -= LR * 0.2 * math.sqrt(max(weight.shape)) * x
                values = torch.linalg.svdvals(x)  # a very small one may need more iterations
                assert values.max() < 1.3 and values.median() > 0.6

        return update

    freeze = ["*embed*", "*lm_head*", "*norm*"]
    assert distance("muon", reference, freeze=freeze) <= 1e-6


def test_lion_is_its_paper() -> None:
    """Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2."""

    def reference(weights: Tensors) -> Callable[[int, Tensors], None]:
        mean = {name: torch.zeros_like(each) for name, each in weights.items()}

        def update(_: int, named: Tensors) -> None:
            for name, weight in weights.items():
                change = torch.sign(0.9 * mean[name] + 0.1 * named[name])
                weight -= LR * (change + decay_of(weight) * weight)
                mean[name] = 0.99 * mean[name] + 0.01 * named[name]

        return update

    assert distance("lion", reference, beta1=0.9, beta2=0.99) <= 2e-6


def test_schedule_free_adamw_is_its_paper() -> None:
    """Defazio et al. 2024, "The Road Less Scheduled", algorithm 1, in terms of x, y and z."""
    warmup = 3

    def reference(weights: Tensors) -> Callable[[int, Tensors], None]:
        x = {name: each.clone() for name, each in weights.items()}
        z = {name: each.clone() for name, each in weights.items()}
        v = {name: torch.zeros_like(each) for name, each in weights.items()}
        total = 0.0

        def update(number: int, named: Tensors) -> None:
            nonlocal total
            lr = LR * min(1.0, number / warmup)
            total += lr**2
            for name, y in weights.items():
                v[name] = 0.95 * v[name] + 0.05 * named[name] ** 2
                u = named[name] / ((v[name] / (1 - 0.95**number)).sqrt() + 1e-8)
                z[name] = z[name] - lr * (u + decay_of(y) * y)
                x[name] = x[name] + lr**2 / total * (z[name] - x[name])
                y.copy_(0.1 * z[name] + 0.9 * x[name])

        return update

    values = {"beta1": 0.9, "beta2": 0.95, "warmup_steps": warmup}
    assert distance("schedule_free_adamw", reference, **values) <= 3e-6


def rounded(share: np.ndarray, noise: np.ndarray, shift: int) -> np.ndarray:
    bits = np.minimum(share, np.float32(1)).astype(np.float32).view(np.uint32)
    return (bits + (noise & np.uint32((1 << shift) - 1))) >> np.uint32(shift)


def scrambled(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return x ^ (x >> np.uint32(16))


class Narrow:
    """AdamW's moments of one parameter in 8 bits, after Dettmers et al. 2022: blocks of 256."""

    def __init__(self, place: int, size: int) -> None:
        self.place, self.size = place, size
        self.mean, self.root = np.zeros(size, np.float32), np.zeros(size, np.float32)

    def store(self, mean: np.ndarray, root: np.ndarray, number: int) -> None:
        key = np.uint32(number * 0x9E3779B9 & 0xFFFFFFFF)
        noise = scrambled(np.arange(self.place, self.place + self.size, dtype=np.uint32) ^ key)
        for first in range(0, self.size, 256):
            part = slice(first, first + 256)
            most, high = np.abs(mean[part]).max(), root[part].max()
            codes = rounded(np.abs(mean[part]) / most, noise[part], 20)
            small = codes <= 889  # code 0
            values = (codes << np.uint32(20)).view(np.float32) * most
            self.mean[part] = np.where(small, 0, np.copysign(values, mean[part]))
            codes = np.maximum(rounded(root[part] / high, noise[part] >> np.uint32(13), 19), 1777)
            self.root[part] = (codes.astype(np.uint32) << np.uint32(19)).view(np.float32) * high


def test_adamw_8bit_is_adamw_with_rounded_moments() -> None:
    decoder, _ = train_step("adamw")
    places = {name: each.storage_offset() for name, each in parameters(decoder).items()}

    def reference(weights: Tensors) -> Callable[[int, Tensors], None]:
        state = {name: Narrow(places[name], each.numel()) for name, each in weights.items()}

        def update(number: int, named: Tensors) -> None:
            for name, weight in weights.items():
                grad = named[name].numpy().ravel()
                mean = np.float32(0.9) * state[name].mean + np.float32(0.1) * grad
                square = np.float32(0.95) * state[name].root ** 2 + np.float32(0.05) * grad**2
                root = np.sqrt(square)
                change = mean / (1 - 0.9**number) / (root / math.sqrt(1 - 0.95**number) + 1e-8)
                weight *= 1 - LR * decay_of(weight)
                weight -= LR * torch.from_numpy(change.astype(np.float32)).view(weight.shape)
                state[name].store(mean, root, number)

        return update

    # Where a number lies on the edge, the last bit decides to which side it is rounded.
    assert distance("adamw_8bit", reference, beta1=0.9, beta2=0.95) <= 2e-5


def test_8bit_state_takes_at_least_70_percent_less_memory() -> None:
    def held(optimizer: str) -> int:
        state = train_step(optimizer)[1].state()
        return sum(each.nbytes for name, each in state.items() if name != "weights")

    assert held("adamw_8bit") <= 0.3 * held("adamw")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(optimizer: str) -> None:
    lr = {"sgd": 0.3, "lion": 1e-3, "adafactor": 0.05}.get(optimizer, 5e-3)
    decoder, step = train_step(optimizer, lr=lr, weight_decay=0.0, clip_norm=1.0)
    ids = torch.randint(0, 37, (8, 17), generator=torch.Generator().manual_seed(1))
    batch = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())]
    losses = [step.run_batches(batch).loss for _ in range(60)]
    assert losses[-1] < losses[0] - 0.5
