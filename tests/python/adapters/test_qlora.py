"""Adapters beside a model whose matrices are held in blocks: what they compute is what they compute
beside the numbers of the same blocks, and those numbers are nowhere.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import omnima
from omnima import _core
from omnima.errors import ConfigError, DataError, OmnimaError

IDS = torch.arange(64).view(4, 16).remainder(61)
TARGETS = ["nf4", "int8", "int4"]
METHODS = ["lora", "dora", "pissa", "ia3"]


def made(**changes: object) -> omnima.Model:
    values = {
        "vocab_size": 61, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 32,
        "initializer_range": 0.2, **changes,
    }  # fmt: skip
    return omnima.Model.from_config(values, seed=3)


def held(to: str = "nf4", **changes: object) -> omnima.Model:
    model = made(**changes)
    model.hold_blocks(to)
    return model


def with_numbers(model: omnima.Model) -> omnima.Model:
    """The same model with the numbers of its blocks in float32."""
    twin = omnima.Model(model.config, seed=None)
    numbers = dict(model._numbers())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(numbers[name])
    return twin


def adapted(model: omnima.Model, method: str) -> omnima.Model:
    model.add_adapter(method, seed=5, **({} if method == "ia3" else {"rank": 2}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, each in model.adapter_parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    return model


def gradients(model: omnima.Model) -> dict[str, torch.Tensor]:
    model.loss(IDS[:, :-1], IDS[:, 1:].contiguous()).backward()
    found = {}
    for name, each in model.adapter_parameters():
        assert each.grad is not None
        found[name] = each.grad
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("to", TARGETS)
def test_loss_and_gradients_are_those_beside_the_numbers(to: str, method: str, tied: bool) -> None:
    model = held(to, tie_word_embeddings=tied)
    twin = adapted(with_numbers(model), method)
    adapted(model, method)
    assert torch.equal(model(IDS), twin(IDS))
    ours, theirs = gradients(model), gradients(twin)
    assert max(each.abs().max().item() for each in theirs.values()) > 1e-3
    for name, each in theirs.items():
        torch.testing.assert_close(ours[name], each, rtol=1e-5, atol=1e-7)


def steps(model: omnima.Model, precision: str) -> tuple[list[float], list[torch.Tensor]]:
    options = _core.StepOptions()
    options.precision, options.lr, options.schedule = precision, 1e-2, "constant"
    step = _core.TrainStep(model.core, options)
    losses = [step.run_batches([(IDS[:, :-1].contiguous(), IDS[:, 1:].contiguous())]).loss]
    losses += [step.run_batches([(IDS[:, :-1].contiguous(), IDS[:, 1:].contiguous())]).loss]
    return losses, [each.detach().clone() for _, each in model.adapter_parameters()]


@pytest.mark.parametrize("to", TARGETS)
def test_steps_in_bf16_are_the_same_to_the_bit(to: str) -> None:
    model = held(to)
    twin = adapted(with_numbers(model), "lora")
    losses, parameters = steps(adapted(model, "lora"), "bf16")
    wanted, same = steps(twin, "bf16")
    assert losses == wanted and losses[1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(parameters, same, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_in_other_formats_are_the_same(precision: str) -> None:
    model = held("nf4")
    twin = adapted(with_numbers(model), "lora")
    losses, parameters = steps(adapted(model, "lora"), precision)
    wanted, same = steps(twin, precision)
    assert losses == pytest.approx(wanted, rel=1e-5 if precision == "fp32" else 1e-3)
    for a, b in zip(parameters, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3)


def test_plain_operators_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(held("nf4", tie_word_embeddings=False), "lora")
    fast = model.loss(IDS[:, :-1], IDS[:, 1:].contiguous()).item()
    monkeypatch.setenv("OMNIMA_REFERENCE", "1")
    plain = gradients(model)
    assert model.loss(IDS[:, :-1], IDS[:, 1:].contiguous()).item() == pytest.approx(fast, rel=1e-5)
    assert all(each.isfinite().all() for each in plain.values())


def test_no_matrix_is_there_in_numbers() -> None:
    model = held("nf4")
    assert all(each.dim() == 1 for _, each in model.named_parameters())
    assert model.num_parameters == made().num_parameters
    assert {format for _, format, _ in model.core.held} == {"nf4_g64x1", "nf4_g64x2", "bf16"}
    assert model.num_trainable_parameters == 0  # until there is an adapter


_PEAK = """
import sys, torch, omnima
from omnima import _core
from omnima.benchmarking.worker import peak_memory
model = omnima.Model.from_pretrained(sys.argv[1], dtype=sys.argv[2])
model.add_adapter("lora", rank=4)
options = _core.StepOptions()
options.precision, options.schedule = "bf16", "constant"
step = _core.TrainStep(model.core, options)
ids = torch.arange(64).view(1, 64)
step.run_batches([(ids, ids)])
print(peak_memory())
"""


def test_memory_is_that_of_the_blocks(tmp_path: Path) -> None:
    large = made(
        vocab_size=2048, hidden_size=512, intermediate_size=2048, num_hidden_layers=12,
        max_position_embeddings=64,
    )  # fmt: skip
    large.save_pretrained(tmp_path / "large", dtype="bfloat16")
    numbers = 4 * large.num_parameters
    large.close()

    def peak(dtype: str) -> int:
        command = [sys.executable, "-c", _PEAK, str(tmp_path / "large"), dtype]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # Of 6 bytes a number, float32 and its copy in 16 bits, little more than half a byte is left.
    assert peak("float32") - peak("nf4") > numbers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("to", TARGETS)
def test_quantized_while_it_is_read_is_quantized_in_memory(
    to: str, dtype: str, tmp_path: Path
) -> None:
    made().save_pretrained(tmp_path / "model", dtype=dtype)
    whole = omnima.Model.from_pretrained(tmp_path / "model")
    whole.hold_blocks(to)
    read = omnima.Model.from_pretrained(tmp_path / "model", dtype=to)
    assert torch.equal(read(IDS), whole(IDS))
    for (name, format, ours), theirs in zip(read.core.held, whole.core.held, strict=True):
        assert (name, format) == theirs[:2] and torch.equal(ours, theirs[2])
    rounded = omnima.Model.from_pretrained(tmp_path / "model")
    rounded.quantize(to, "rtn", ends="none")
    assert rounded.quantization is not None and read.quantization is not None
    assert read.quantization.settings == rounded.quantization.settings
    for name, blocks in rounded.quantization.blocks.items():
        assert torch.equal(read.quantization.blocks[name], blocks)


@pytest.mark.parametrize("to", TARGETS)
def test_a_quantized_directory_is_taken_as_it_is(to: str, tmp_path: Path) -> None:
    small = made()
    small.quantize(to, "rtn")
    small.save_pretrained(tmp_path / "small")
    numbers = omnima.Model.from_pretrained(tmp_path / "small")
    blocks = omnima.Model.from_pretrained(tmp_path / "small", dtype="stored")
    assert numbers.quantization is not None and not numbers.core.held
    assert {name for name, _, _ in blocks.core.held} == set(numbers.quantization.formats)
    assert torch.equal(blocks(IDS), numbers(IDS))
    numbers.hold_blocks()
    assert torch.equal(numbers(IDS), blocks(IDS))
    with pytest.raises(ConfigError, match=f"quantized to {to} already"):
        other = "int8" if to != "int8" else "nf4"
        omnima.Model.from_pretrained(tmp_path / "small", dtype=other)


def test_a_gguf_file_is_quantized_while_it_is_read(tmp_path: Path) -> None:
    made().save_gguf(tmp_path / "model.gguf", "f32")
    read = omnima.Model.from_pretrained(tmp_path / "model.gguf", dtype="nf4")
    assert torch.equal(read(IDS), held("nf4")(IDS))


def test_fused_and_turned_files_are_held_alike(tmp_path: Path) -> None:
    shape = {
        "norm": "layer_norm", "positions": "learned", "activation": "gelu_tanh",
        "attention_bias": True, "attention_output_bias": True, "mlp_bias": True,
        "num_key_value_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    model = made(**shape)
    model.save_pretrained(tmp_path / "gpt2")
    read = omnima.Model.from_pretrained(tmp_path / "gpt2", dtype="nf4")
    assert torch.equal(read(IDS), held("nf4", **shape)(IDS))


def test_it_is_saved_as_its_blocks_or_their_numbers(tmp_path: Path) -> None:
    model = held("nf4")
    model.save_pretrained(tmp_path / "blocks")
    again = omnima.Model.from_pretrained(tmp_path / "blocks", dtype="stored")
    assert torch.equal(again(IDS), model(IDS))
    model.save_pretrained(tmp_path / "numbers", blocks=False)
    assert torch.equal(omnima.Model.from_pretrained(tmp_path / "numbers")(IDS), model(IDS))
    model.save_gguf(tmp_path / "model.gguf", "f32")
    file = omnima.Model.from_pretrained(tmp_path / "model.gguf")
    torch.testing.assert_close(file(IDS), model(IDS))


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_it_writes_with_and_without_an_adapter(method: str) -> None:
    model = held("nf4")
    twin = with_numbers(model)
    options = {"max_new_tokens": 8, "temperature": 0.0}
    bare = model.generate([1, 2, 3], **options).ids
    assert bare == twin.generate([1, 2, 3], **options).ids
    with_adapter = adapted(model, method).generate([1, 2, 3], **options).ids
    assert with_adapter == adapted(twin, method).generate([1, 2, 3], **options).ids


def test_the_adapter_belongs_to_the_model_with_numbers(tmp_path: Path) -> None:
    model = adapted(held("nf4"), "lora")
    model.save_adapter(tmp_path / "adapter")
    whole = made()
    name = whole.load_adapter(tmp_path / "adapter")
    for (_, ours), (_, theirs) in zip(
        model.adapter_parameters(), whole.adapter_parameters(name), strict=True
    ):
        assert torch.equal(ours, theirs)
    again = held("nf4")
    again.load_adapter(tmp_path / "adapter")
    assert torch.equal(again(IDS), model(IDS))


def test_what_needs_numbers_is_refused() -> None:
    model = held("nf4")
    with pytest.raises(ConfigError, match="do not learn: add an adapter"):
        _core.TrainStep(model.core, _core.StepOptions())
    with pytest.raises(ConfigError, match="no rows are added"):
        model.resize(128)
    with pytest.raises(ConfigError, match="quantized already"):
        model.quantize("int8")
    with pytest.raises(ConfigError, match="held in blocks already"):
        model.core.quantize(None, "rtn", {"model.layers.0.mlp.up_proj.weight": "int8_g64"})
    with pytest.raises(ConfigError, match="quantized to nf4 already, not to int8"):
        model.hold_blocks("int8")
    adapted(model, "lora")
    with pytest.raises(ConfigError, match="into an unquantized base only"):
        model.merge_adapters()
    with pytest.raises(ConfigError, match="stand at the model as it is"):
        model.hold_blocks("nf4")


def test_what_cannot_be_held_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not quantized"):
        made().hold_blocks()
    with pytest.raises(ConfigError, match="on the CPU, not on cuda"):
        omnima.Model.from_pretrained(tmp_path, "cuda", dtype="nf4")
    shape = made().core.config
    for name in ("model.norm.weight", "model.layers.9.mlp.up_proj.weight"):
        with pytest.raises(ConfigError, match="cannot be held in blocks"):
            _core.Decoder(shape, None, "cpu", {name: "int8_g64"})
    with pytest.raises(ConfigError, match="does not lie in blocks"):
        _core.Decoder(shape, None, "cpu", {"model.layers.0.mlp.up_proj.weight": "int8_g128"})
    name = "model.layers.0.mlp.down_proj.weight"
    decoder = _core.Decoder(shape, 0, "cpu", {name: "int8_g128"})
    with pytest.raises(OmnimaError, match="were not given"):
        decoder.logits(IDS)
    with pytest.raises(DataError, match="of int8_g128 is"):
        decoder.hold(name, torch.zeros(3, dtype=torch.uint8))
    broken = made()
    with torch.no_grad():
        dict(broken.named_parameters())[name][0, 0] = float("nan")
    with pytest.raises(DataError, match=f'"{name}" holds NaN'):
        broken.hold_blocks("nf4")


def test_experts_stay_numbers() -> None:
    shape = {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    }  # fmt: skip
    model = held("nf4", **shape)
    named = {name for name, _, _ in model.core.held}
    assert any("shared_expert" in name for name in named)
    assert not any(".experts." in name for name in named)
    assert torch.equal(model(IDS), with_numbers(model)(IDS))
