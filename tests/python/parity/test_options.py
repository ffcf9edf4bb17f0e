"""Options of the decoder beside transformers where it has the same, and beside plain PyTorch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core
from omnima.config import ModelConfig
from omnima.hub.architectures import BY_NAME

from .drawn import drawn, relative

transformers = pytest.importorskip("transformers")

SHAPE: dict[str, Any] = dict(
    vocab_size=97, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


PARTIAL = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, **more}}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "qwen3 with bias": ("Qwen3", {"head_dim": 16, "attention_bias": True}),
    "qwen3 with windows": (
        "Qwen3",
        {
            "sliding_window": 9, "use_sliding_window": True, "max_window_layers": 0, "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "linear": ("Llama", rope("linear")),
    "dynamic": ("Llama", {**rope("dynamic"), "max_position_embeddings": 16}),
    "yarn": ("Llama", rope("yarn", original_max_position_embeddings=16)),
    "yarn with its own ramp": (
        "Llama",
        rope("yarn", original_max_position_embeddings=16, beta_fast=4.0, attention_factor=1.3),
    ),
    "llama3": ("Llama", rope("llama3", **LLAMA3)),
    "qwen2": ("Qwen2", {}),
    "gemma": ("Gemma", {"head_dim": 24}),
    "gemma 2": ("Gemma2", {"head_dim": 16, "sliding_window": 9, "query_pre_attn_scalar": 21}),
    "gemma 3": (
        "Gemma3Text",
        {
            "head_dim": 16, "sliding_window": 9, "sliding_window_pattern": 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "phi-3": ("Phi3", {"rope_parameters": PARTIAL}),
    "olmo 2": ("Olmo2", {}),
    "olmo 3": (
        "Olmo3",
        {
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0,
                    "original_max_position_embeddings": 32,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "stablelm": ("StableLm", {"use_qkv_bias": True, "rope_parameters": PARTIAL}),
    "starcoder 2": ("Starcoder2", {"sliding_window": 7}),
    "arcee": ("Arcee", {}),
    "nemotron": ("Nemotron", {"rope_parameters": PARTIAL}),
    "pythia": ("GPTNeoX", {"rotary_pct": 0.25}),
    "neox": ("GPTNeoX", {"rotary_pct": 1.0}),
    "neox in turn": ("GPTNeoX", {"rotary_pct": 1.0, "use_parallel_residual": False}),
}  # fmt: skip


def as_ours(theirs: Any, ours: omnima.Model) -> dict[str, torch.Tensor]:
    """The gradients of transformers' model, laid out as our parameters."""
    found = {name: parameter.grad.double() for name, parameter in theirs.named_parameters()}
    names = BY_NAME[type(theirs).__name__].names
    head = names.ends[1]
    if "lm_head.weight" in found and head != "lm_head.weight":  # GPT-NeoX's files: embed_out
        found[head] = found.pop("lm_head.weight")
    zeros = {name: torch.zeros_like(each) for name, each in found.items()}
    config = ours.config.to_dict()
    # What a layout adds to a weight is nothing to its gradient.
    added = names.to_ours(zeros.__getitem__, config)
    laid = names.to_ours(found.__getitem__, config)
    return {name: each - added[name] for name, each in laid.items()}


def build(family: str, changes: dict[str, Any]) -> Any:
    fields = {**SHAPE, **changes}
    if family == "GPTNeoX":  # it does not share keys and values between heads
        del fields["num_key_value_heads"]
    # A row for padding would have no gradient.
    return drawn(family, {"pad_token_id": None, **fields})


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_transformers(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    theirs = build(family, changes)
    theirs.save_pretrained(tmp_path)
    ours = omnima.Model.from_pretrained(tmp_path)
    ids = torch.randint(97, (3, 40))
    assert relative(ours(ids), theirs(ids).logits) < 1e-5
    loss = ours.loss(ids, torch.roll(ids, -1, 1))
    wanted = torch.nn.functional.cross_entropy(
        theirs(ids).logits.flatten(0, 1), torch.roll(ids, -1, 1).flatten()
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    wanted.backward()
    expected = as_ours(theirs, ours)
    for name, parameter in ours.named_parameters():
        assert relative(parameter.grad, expected[name]) < 2e-5, name


@pytest.mark.parametrize("case", [case for case in CASES if case != "dynamic"])
def test_greedy_text_equals_transformers(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    theirs = build(family, changes)
    theirs.save_pretrained(tmp_path)
    ours = omnima.Model.from_pretrained(tmp_path)
    prompt = [5, 17, 3, 88, 42, 9, 61, 2]
    expected = theirs.eval().generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 8, dtype=torch.int64),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 8:]
    parameters = {name: tensor.detach() for name, tensor in ours.named_parameters()}
    engine = _core.Engine(ours.config.to_dict(), parameters)
    [(ids, *_)] = engine.generate([prompt], {"max_new_tokens": 30}, seeds=[0])
    assert ids == expected.tolist()


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12])
def test_alibi_and_caps_beside_plain_pytorch(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    config = ModelConfig(
        vocab_size=31, hidden_size=24, num_hidden_layers=1, num_attention_heads=heads,
        max_position_embeddings=20, positions="alibi", attention_softcap=2.0, logit_softcap=3.0,
        activation="geglu_tanh", parallel_residual=True, initializer_range=0.5,
    )  # fmt: skip
    model = omnima.Model.from_config(config, seed=1)
    w = dict(model.named_parameters())
    ids = torch.randint(31, (2, 20))
    alibi = build_alibi_tensor(torch.ones(2, 20), heads, torch.float32).view(2, heads, 1, 20)
    x = w["model.embed_tokens.weight"][ids]
    block = "model.layers.0."

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (24,), w[name + ".weight"], config.norm_eps)

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.view(2, 20, heads, -1).transpose(1, 2)

    read = norm(x, block + "input_layernorm")
    q, k, v = (split(read @ w[f"{block}self_attn.{part}_proj.weight"].T) for part in "qkv")
    scores = 2.0 * torch.tanh(q @ k.mT / math.sqrt(24 // heads) / 2.0) + alibi
    hidden = torch.ones(20, 20, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    attended = (weights @ v).transpose(1, 2).reshape(2, 20, 24)
    attended = attended @ w[block + "self_attn.o_proj.weight"].T
    read = norm(x, block + "post_attention_layernorm")
    gate, up = (read @ w[f"{block}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
    inner = torch.nn.functional.gelu(gate, approximate="tanh") * up
    x = x + attended + inner @ w[block + "mlp.down_proj.weight"].T
    logits = norm(x, "model.norm") @ w["model.embed_tokens.weight"].T
    assert relative(model(ids), 3.0 * torch.tanh(logits / 3.0)) < 1e-5


def test_relative_positions_beside_t5() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    config = ModelConfig(
        vocab_size=31, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=300, positions="relative", relative_buckets=16,
        relative_max_distance=100, initializer_range=0.5,
    )  # fmt: skip
    model = omnima.Model.from_config(config, seed=1)
    w = dict(model.named_parameters())
    ids = torch.randint(31, (1, 300))
    place = torch.arange(300)
    bucket = T5Attention._relative_position_bucket(
        place[None, :] - place[:, None], bidirectional=False, num_buckets=16, max_distance=100
    )
    bias = w["model.relative_bias.weight"][bucket].permute(2, 0, 1)
    x = w["model.embed_tokens.weight"][ids]
    block = "model.layers.0."

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (32,), w[name + ".weight"], config.norm_eps)

    read = norm(x, block + "input_layernorm")
    q, k, v = (
        (read @ w[f"{block}self_attn.{part}_proj.weight"].T).view(1, 300, 4, 8).transpose(1, 2)
        for part in "qkv"
    )
    hidden = torch.ones(300, 300, dtype=torch.bool).triu(1)
    scores = (q @ k.mT / math.sqrt(8) + bias).masked_fill(hidden, -math.inf)
    attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 300, 32)
    x = x + attended @ w[block + "self_attn.o_proj.weight"].T
    read = norm(x, block + "post_attention_layernorm")
    gate, up = (read @ w[f"{block}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
    x = x + (torch.nn.functional.silu(gate) * up) @ w[block + "mlp.down_proj.weight"].T
    logits = norm(x, "model.norm") @ w["model.embed_tokens.weight"].T
    assert relative(model(ids), logits) < 1e-5
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    [expected] = torch.autograd.grad(loss, w["model.relative_bias.weight"])
    model.loss(ids, ids).backward()
    assert relative(w["model.relative_bias.weight"].grad, expected) < 1e-4
