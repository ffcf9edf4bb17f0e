"""Block-sparse attention beside PyTorch's attention over a mask that is written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import omnima
from omnima import _core
from omnima.benchmarking import shape_of
from omnima.config import ModelConfig
from omnima.errors import ConfigError
from omnima.planning import Job

from .drawn import relative

HIDDEN, VOCAB = 24, 31


def config_of(context: int, heads: int = 3, **changes: Any) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=heads,
        max_position_embeddings=context, positions="none", initializer_range=0.4, **changes,
    )  # fmt: skip


def written_out(config: ModelConfig, layer: int, place: list[int]) -> torch.Tensor:
    """Which keys the queries of tokens at these places see, one pair at a time: [heads, t, t]."""
    heads, time = config.num_attention_heads, len(place)
    seen = torch.zeros(heads, time, time, dtype=torch.bool)
    size = config.blocksparse_block_size
    every = config.dense_attention_every_n_layers
    dense = not size or (every and (layer + 1) % every == 0)
    step = max(1, config.blocksparse_vert_stride // heads)
    for head in range(heads):
        shift = 0 if config.blocksparse_homo_head_pattern else head * step
        for query in range(time):
            for key in range(query - place[query], query + 1):
                of_query, of_key = place[query] // max(size, 1), place[key] // max(size, 1)
                near = of_query - of_key < config.blocksparse_num_local_blocks
                strided = (of_key + 1 + shift) % config.blocksparse_vert_stride == 0
                seen[head, query, key] = dense or near or strided
    return seen


def plain_logits(model: omnima.Model, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """The same decoder of PyTorch's operators."""
    config, w = model.config, dict(model.named_parameters())
    heads, time = config.num_attention_heads, ids.shape[1]
    places = torch.zeros_like(ids)
    for i in range(1, time):
        places[:, i] = torch.where(segments[:, i] == segments[:, i - 1], places[:, i - 1] + 1, 0)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (HIDDEN,), w[name + ".weight"], config.norm_eps)

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        block = f"model.layers.{layer}."
        seen = torch.stack([written_out(config, layer, place) for place in places.tolist()])
        read = norm(x, block + "input_layernorm")
        q, k, v = (
            (read @ w[f"{block}self_attn.{part}_proj.weight"].T)
            .view(len(ids), time, -1, config.head_dim)
            .transpose(1, 2)
            for part in "qkv"
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, enable_gqa=True
        )
        mixed = mixed.transpose(1, 2).reshape(len(ids), time, heads * config.head_dim)
        x = x + mixed @ w[block + "self_attn.o_proj.weight"].T
        read = norm(x, block + "post_attention_layernorm")
        gate, up = (read @ w[f"{block}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (torch.nn.functional.silu(gate) * up) @ w[block + "mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ w["model.embed_tokens.weight"].T


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_patterns_equal_a_mask_in_pytorch(data: st.DataObject) -> None:
    time = data.draw(st.integers(2, 61), "time")
    heads, shared = data.draw(st.sampled_from([(1, 1), (2, 1), (3, 3), (4, 2), (6, 2)]), "heads")
    try:
        config = config_of(
            time,
            heads,
            num_key_value_heads=shared,
            blocksparse_block_size=data.draw(st.integers(1, 12), "size"),
            blocksparse_num_local_blocks=data.draw(st.integers(1, 4), "local"),
            blocksparse_vert_stride=data.draw(st.integers(2, 9), "stride"),
            blocksparse_homo_head_pattern=data.draw(st.booleans(), "same"),
            dense_attention_every_n_layers=data.draw(st.sampled_from([0, 2]), "dense"),
        )
    except ConfigError:
        assume(False)
    model = omnima.Model.from_config(config, seed=1)
    generator = torch.Generator().manual_seed(time)
    ids = torch.randint(VOCAB, (2, time), generator=generator)
    starts = torch.rand(2, time, generator=generator) < data.draw(st.sampled_from([0, 0.1]))
    segments = starts.cumsum(1).int()
    labels = torch.roll(ids, -1, 1)
    expected = torch.nn.functional.cross_entropy(
        plain_logits(model, ids, segments).flatten(0, 1), labels.flatten()
    )
    wanted = torch.autograd.grad(expected, [tensor for _, tensor in model.named_parameters()])
    loss = model.core.loss(ids, labels, segments)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    for (name, tensor), gradient in zip(model.named_parameters(), wanted, strict=True):
        assert relative(tensor.grad, gradient) < 1e-4, name


def test_the_engine_writes_what_training_computes() -> None:
    config = config_of(
        60, 4, num_key_value_heads=2, blocksparse_block_size=4, blocksparse_num_local_blocks=2,
        blocksparse_vert_stride=5,
    )  # fmt: skip
    model = omnima.Model.from_config(config, seed=1)
    ids = torch.randint(VOCAB, (1, 60), generator=torch.Generator().manual_seed(3))
    wanted = plain_logits(model, ids, torch.zeros_like(ids))
    assert relative(model(ids), wanted) < 1e-5
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}
    engine = _core.Engine(config.to_dict(), parameters)
    assert relative(engine.logits(ids[0].tolist(), stepwise=True), wanted[0]) < 1e-5
    assert relative(engine.logits(ids[0].tolist(), stepwise=False), wanted[0]) < 1e-5


def test_a_directory_keeps_the_pattern_and_says_that_no_other_tool_has_it(tmp_path: Path) -> None:
    config = config_of(64, blocksparse_block_size=4, dense_attention_every_n_layers=2)
    with pytest.warns(UserWarning, match="loads in Omnima only"):
        omnima.Model.from_config(config, seed=1).save_pretrained(tmp_path)
    assert omnima.Model.from_pretrained(tmp_path).config == config


def test_plans_count_what_is_seen() -> None:
    def counted(**changes: Any) -> float:
        model = config_of(4096, **changes)
        return Job(model, rows=1, context=4096).flops_per_token()

    dense = counted()
    assert dense > counted(sliding_window=1000) > counted(sliding_window=100)
    few = counted(blocksparse_block_size=64)
    assert dense > counted(blocksparse_block_size=64, blocksparse_vert_stride=2) > few
    assert counted(blocksparse_block_size=64, dense_attention_every_n_layers=2) == pytest.approx(
        (dense + few) / 2
    )
    # Rows shorter than the context, and than what the pattern spans.
    short = Job(config_of(4096, blocksparse_block_size=512), rows=1, context=64)
    assert short.flops_per_token() == Job(config_of(64), rows=1, context=64).flops_per_token()
    assert shape_of("bench-13.9m-long").flops("train") > 0
