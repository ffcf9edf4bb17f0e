"""Logits, loss and every gradient beside transformers, with the same weights in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import omnima

from .drawn import relative

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_llama(key_value_heads: int, tied: bool, bias: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=key_value_heads,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            tie_word_embeddings=tied,
            attention_bias=bias,
            mlp_bias=bias,
        )
    )
    with torch.no_grad():  # biases and norms of transformers start at constants
        for parameter in theirs.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    ours = omnima.Model.from_pretrained(tmp_path)
    ids = torch.randint(97, (3, 33))
    assert relative(ours(ids), theirs(ids).logits) < 1e-5
    loss = ours.loss(ids[:, :-1], ids[:, 1:].contiguous())
    reference = theirs(input_ids=ids, labels=ids).loss
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    loss.backward()
    reference.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert relative(parameter.grad, expected[name].grad) < 1e-5, name


def test_gpt2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=97,
            n_positions=64,
            n_embd=64,
            n_layer=3,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    ours = omnima.Model.from_pretrained(tmp_path)
    ids = torch.randint(97, (3, 33))
    assert relative(ours(ids), theirs(ids).logits) < 1e-5
    loss = ours.loss(ids[:, :-1], ids[:, 1:].contiguous())
    reference = theirs(input_ids=ids, labels=ids).loss
    loss.backward()
    reference.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = gpt2_gradient(name, grads)
        # The key's bias has no effect on the softmax: its exact gradient is zero.
        scale = expected.abs().max().item()
        if scale > 1e-7:
            assert relative(parameter.grad, expected) < 2e-5, name


def gpt2_gradient(name: str, grads: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the transformers gradient of our parameter: Conv1D is transposed, q, k, v fused."""
    plain = {
        "model.embed_tokens.weight": "transformer.wte.weight",
        "model.embed_positions.weight": "transformer.wpe.weight",
        "model.norm.weight": "transformer.ln_f.weight",
        "model.norm.bias": "transformer.ln_f.bias",
    }
    if name in plain:
        return grads[plain[name]]
    _, _, layer, *middle, kind = name.split(".")
    part = {
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "self_attn.o_proj": "attn.c_proj",
        "mlp.up_proj": "mlp.c_fc",
        "mlp.down_proj": "mlp.c_proj",
    }.get(".".join(middle))
    prefix = f"transformer.h.{layer}."
    if part is None:
        which = "qkv".index(middle[1][0])
        return grads[f"{prefix}attn.c_attn.{kind}"].chunk(3, dim=-1)[which].t()
    grad = grads[f"{prefix}{part}.{kind}"]
    return grad.t() if kind == "weight" and not part.startswith("ln") else grad
