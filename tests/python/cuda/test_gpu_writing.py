"""On a GPU: generation beside the CPU's. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core
from omnima.errors import ConfigError

VOCAB, CONTEXT = 211, 640
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.1,
}
GPT: dict[str, Any] = {
    **LLAMA,
    "num_key_value_heads": 4,
    "norm": "layer_norm",
    "activation": "gelu",
    "positions": "learned",
    "attention_bias": True,
    "mlp_bias": True,
}
# Nothing here is a multiple of a 16-byte access.
ODD: dict[str, Any] = {
    **LLAMA,
    "hidden_size": 60,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 101,
    "sliding_window": 33,
}
FAMILIES = pytest.mark.parametrize("values", [LLAMA, GPT, ODD], ids=["llama", "gpt", "odd"])
FORMATS = ["f32", "bf16", "q8_0", "q4_0", "int8_g64", "int4_g64", "int4z_g64", "nf4_g64x4"]


def engines(values: dict[str, Any], format: str = "f32") -> dict[str, _core.Engine]:
    """The same numbers on both devices."""
    decoder = _core.Decoder(_core.DecoderConfig(values), 3, "cpu")
    parameters, formats = {}, {}
    for name, parameter in decoder.named_parameters():
        parameters[name] = parameter.detach()
        numbers, _ = _core.block_of(format)
        if format == "f32" or parameter.dim() != 2 or parameter.shape[1] % numbers:
            continue
        parameters[name] = _core.quantized(format, parameters[name])
        formats[name] = format
    return {
        device: _core.Engine(values_of(values), parameters, formats, device=device)
        for device in ("cpu", "cuda")
    }


def values_of(values: dict[str, Any]) -> dict[str, Any]:
    return _core.DecoderConfig(values).values()


def ids(count: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (count,), generator=generator).tolist()


@FAMILIES
@pytest.mark.parametrize("stepwise", [False, True])
def test_logits_are_those_of_the_cpu(values: dict[str, Any], stepwise: bool) -> None:
    both = engines(values)
    for count in (1, 20, 300):
        found = {name: each.logits(ids(count), stepwise) for name, each in both.items()}
        torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_stored_formats_give_the_cpus_logits(format: str) -> None:
    both = engines(LLAMA, format)
    for stepwise in (False, True):
        found = {name: each.logits(ids(50), stepwise) for name, each in both.items()}
        torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-3, atol=2e-4)


@FAMILIES
def test_a_batch_gives_each_sequence_its_own_text(values: dict[str, Any]) -> None:
    engine = engines(values)["cuda"]
    prompts = [ids(1 + 29 * i, seed=i) for i in range(11)]
    options = {"max_new_tokens": 24}
    together = engine.generate(prompts, options, list(range(11)), stop_ids=[5, 6, 7])
    for i, prompt in enumerate(prompts):
        alone = engine.generate([prompt], options, [i], stop_ids=[5, 6, 7])
        assert alone[0][0] == together[i][0]


def test_replayed_steps_give_the_bits_of_launched_ones() -> None:
    engine = engines(LLAMA)["cuda"]
    prompt = ids(20)
    # A prompt of fewer than 32 tokens is launched as the rows of one step; steps are replayed.
    assert torch.equal(engine.logits(prompt, True), engine.logits(prompt, False))


def test_guessing_ahead_changes_nothing() -> None:
    engine = engines(LLAMA)["cuda"]
    prompt = ids(9) * 5
    plain = engine.generate([prompt], {"max_new_tokens": 40}, [0])
    guessed = engine.generate([prompt], {"max_new_tokens": 40, "speculative_tokens": 6}, [0])
    assert guessed[0][0] == plain[0][0]


def test_a_model_writes_where_it_lives(tmp_path: Path) -> None:
    model = omnima.Model(omnima.ModelConfig(**LLAMA), device="cuda")
    on_cpu = omnima.Model(omnima.ModelConfig(**LLAMA))
    prompt = ids(12)
    wanted = on_cpu.generate(prompt, temperature=0, max_new_tokens=8).ids
    assert model.generate(prompt, temperature=0, max_new_tokens=8).ids == wanted
    on_cpu.save_pretrained(tmp_path / "model")
    for dtype in ("auto", "bfloat16"):
        stored = omnima.Model.from_pretrained(tmp_path / "model", device="cuda", dtype=dtype)
        assert stored.device == "cuda"
        assert len(stored.generate(prompt, max_new_tokens=8).ids) > 0


def test_what_the_gpu_cannot_write_with_is_refused_or_written_on_the_cpu() -> None:
    experts = {**LLAMA, "num_experts": 4}
    assert "experts" in _core.why_not_on_gpu(values_of(experts))
    model = omnima.Model(omnima.ModelConfig(**experts), device="cuda")
    assert model.generate([1, 2, 3], max_new_tokens=3).ids
    with pytest.raises(ConfigError, match="experts"):
        parameters = dict(model.named_parameters())
        _core.Engine(values_of(experts), parameters, device="cuda")
