"""Mixtures of experts beside transformers, and beside plain PyTorch that loops over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core
from omnima.config import ModelConfig

from .drawn import drawn, relative

transformers = pytest.importorskip("transformers")

SHAPE: dict[str, Any] = dict(
    vocab_size=97, hidden_size=64, intermediate_size=80, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    experts_implementation="eager",
)  # fmt: skip
QWEN: dict[str, Any] = {"num_experts": 6, "moe_intermediate_size": 32, "head_dim": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "mixtral with three of eight": (
        "Mixtral",
        {"num_local_experts": 8, "num_experts_per_tok": 3, "sliding_window": 9},
    ),
    "qwen3-moe": ("Qwen3Moe", {**QWEN, "num_experts_per_tok": 1, "decoder_sparse_step": 2}),
    "qwen3-moe normed": ("Qwen3Moe", {**QWEN, "num_experts_per_tok": 3, "norm_topk_prob": True}),
}


def build(case: str, folder: Path) -> tuple[Any, omnima.Model]:
    """A model of transformers with drawn weights, and ours of the same directory."""
    family, changes = CASES[case]
    model = drawn(family, {**SHAPE, **changes})
    model.save_pretrained(folder)
    return model, omnima.Model.from_pretrained(folder)


def fused(name: str, ours: dict[str, torch.Tensor], experts: int) -> torch.Tensor:
    """Ours of their parameter: they keep all experts of a layer in one tensor."""
    if name in ours:
        return ours[name]
    parts = ["gate_proj", "up_proj"] if "gate_up_proj" in name else ["down_proj"]
    root = name.rpartition(".")[0]
    return torch.stack(
        [
            torch.cat([ours[f"{root}.{index}.{part}.weight"] for part in parts])
            for index in range(experts)
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_transformers(case: str, tmp_path: Path) -> None:
    theirs, ours = build(case, tmp_path)
    ids, labels = torch.randint(97, (3, 40)), torch.randint(97, (3, 40))
    assert relative(ours(ids), theirs(ids).logits) < 1e-5
    loss = ours.loss(ids, labels)
    wanted = torch.nn.functional.cross_entropy(theirs(ids).logits.flatten(0, 1), labels.flatten())
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    wanted.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        got = fused(name, gradients, ours.config.num_experts)
        assert relative(got, parameter.grad) < 3e-5, name


@pytest.mark.parametrize("case", CASES)
def test_the_routers_losses_and_their_gradients_equal_transformers(
    case: str, tmp_path: Path
) -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    theirs, plain = build(case, tmp_path)
    changes = {"router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.25}
    ours = omnima.Model.from_config(plain.config.replace(**changes))
    with torch.no_grad():
        for (_, to), (_, value) in zip(
            ours.named_parameters(), plain.named_parameters(), strict=True
        ):
            to.copy_(value)
    ids, labels = torch.randint(97, (2, 40)), torch.randint(97, (2, 40))
    made = theirs(ids, output_router_logits=True)
    config = ours.config
    routers = [each.float() for each in made.router_logits]
    assert len(routers) == config.expert_layers
    # Theirs takes all layers as one; ours is the mean over layers.
    balance = torch.stack(
        [
            load_balancing_loss_func((each,), config.num_experts, config.num_experts_per_tok)
            for each in routers
        ]
    ).mean()
    square = torch.stack([each.logsumexp(-1).square().mean() for each in routers]).mean()
    words = torch.nn.functional.cross_entropy(made.logits.flatten(0, 1), labels.flatten())
    wanted = words + 0.5 * balance + 0.25 * square
    loss = ours.loss(ids, labels, as_trained=True)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    (2 * loss).backward()
    (2 * wanted).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        got = fused(name, gradients, config.num_experts)
        assert relative(got, parameter.grad) < 3e-5, name
    options = _core.StepOptions()
    options.schedule, options.clip_norm = "constant", 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # all rows in one slice
    try:
        result = _core.TrainStep(ours.core, options).run_batches([(ids, labels)])
    finally:
        torch.set_num_threads(threads)
    assert result.loss == pytest.approx(words.item(), rel=1e-5)
    assert result.balance_loss == pytest.approx(balance.item(), rel=1e-5)
    assert result.router_z_loss == pytest.approx(square.item(), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_greedy_text_equals_transformers(case: str, tmp_path: Path) -> None:
    theirs, ours = build(case, tmp_path)
    prompt = [(7 * n + 3) % 97 for n in range(8)]
    expected = theirs.eval().generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(prompt) :]
    parameters = {name: tensor.detach() for name, tensor in ours.named_parameters()}
    engine = _core.Engine(ours.config.to_dict(), parameters)
    [(ids, *_)] = engine.generate([prompt], {"max_new_tokens": 30}, seeds=[0])
    assert ids == expected.tolist()


def test_a_shared_expert_beside_a_loop_over_tokens() -> None:
    config = ModelConfig(
        vocab_size=31, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=20, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12,
        shared_expert_intermediate_size=20, activation="gelu", initializer_range=0.5,
        norm_topk_prob=False,
    )  # fmt: skip
    model = omnima.Model.from_config(config, seed=1)
    w = dict(model.named_parameters())
    block = "model.layers.0."
    with torch.no_grad():  # attention adds nothing
        w[block + "self_attn.o_proj.weight"].zero_()
    ids = torch.randint(31, (2, 20))
    x = w["model.embed_tokens.weight"][ids].flatten(0, 1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (24,), w[name + ".weight"], config.norm_eps)

    def mlp(x: torch.Tensor, name: str) -> torch.Tensor:
        inner = torch.nn.functional.gelu(x @ w[f"{block}mlp.{name}.up_proj.weight"].T)
        return inner @ w[f"{block}mlp.{name}.down_proj.weight"].T

    read = norm(x, block + "post_attention_layernorm")
    rows = []
    for token in read:
        shares = (w[block + "mlp.gate.weight"] @ token).softmax(-1)
        best = shares.argsort(descending=True)[:2].tolist()
        parts = [shares[expert] * mlp(token, f"experts.{expert}") for expert in best]
        rows.append(mlp(token, "shared_expert") + parts[0] + parts[1])
    logits = norm(x + torch.stack(rows), "model.norm") @ w["model.embed_tokens.weight"].T
    assert relative(model(ids).flatten(0, 1), logits) < 1e-5
