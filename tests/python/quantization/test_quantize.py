"""Quantized models: smaller, near to what they were, the same again from their files."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from omnima import Model, ModelConfig, Tokenizer, _core
from omnima.errors import ConfigError, DataError
from omnima.quantization import METHODS, TARGETS, plan
from omnima.quantization.text import perplexity, rows_of

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
# What makes calibration meet other ways through a block.
KINDS = {
    "llama": {},
    "gpt2": {"norm": "layer_norm", "activation": "gelu_tanh", "mlp_bias": True}
    | {"attention_bias": True, "positions": "learned"},
    "experts": {"num_experts": 4, "moe_intermediate_size": 64}
    | {"shared_expert_intermediate_size": 64},
    "norms after": {"norm_placement": "after", "tie_word_embeddings": False},
    "partly turned": {"partial_rotary_factor": 0.5, "qk_norm": True},
}


def made(kind: str = "llama", seed: int = 3) -> Model:
    """A small model whose inputs differ in size, as those of trained models do."""
    tokenizer = Tokenizer.train(["abc"], "byte")
    shape = {**SHAPE, **KINDS[kind], "vocab_size": tokenizer.vocab_size}
    model = Model(ModelConfig(**shape), seed=seed, tokenizer=tokenizer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.endswith("norm.weight"):
                each.mul_(torch.randn(each.shape, generator=generator).exp())
            elif each.dim() == 2:
                each.mul_(4)
    return model


def ids(rows: int = 8, time: int = 64) -> torch.Tensor:
    return torch.randint(0, 250, (rows, time), generator=torch.Generator().manual_seed(9))


def apart(model: Model, other: Model) -> float:
    """The mean square distance of logits, as a share of their own variance."""
    with torch.no_grad():
        one, two = model(ids()), other(ids())
    return float((one - two).square().mean() / one.var())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"The king had {i} sons and {i * i} cows.\n" for i in range(200)))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("to", TARGETS)
def test_a_quantized_model_is_near_and_comes_back(to, method, kind, tmp_path):
    model, before = made(kind), made(kind)
    report = model.quantize(to, method, calibration=ids())
    assert apart(before, model) < (0.02 if to == "int8" else 0.5)
    shapes = {name: each.shape for name, each in model.named_parameters()}
    assert set(model.quantization.blocks) | set(report.kept_in_high_precision) == set(shapes)
    for name, blocks in model.quantization.blocks.items():
        numbers = _core.dequantized(model.quantization.formats[name], blocks, list(shapes[name]))
        assert torch.equal(numbers, dict(model.named_parameters())[name])

    model.save_pretrained(tmp_path / "out")
    stored = _core.read_safetensors(tmp_path / "out" / "model.safetensors", False)
    assert report.bytes == sum(each.numel() * each.element_size() for each in stored.values())
    assert report.bits_per_weight == pytest.approx(8 * report.bytes / model.num_parameters)
    again = Model.from_pretrained(tmp_path / "out")
    assert torch.equal(again(ids()), model(ids()))
    assert again.generate("The", max_new_tokens=4, temperature=0.0).ids == (
        model.generate("The", max_new_tokens=4, temperature=0.0).ids
    )
    stays = Model.from_pretrained(tmp_path / "out", dtype="auto")
    assert stays.generate("The", max_new_tokens=4, temperature=0.0).ids == (
        model.generate("The", max_new_tokens=4, temperature=0.0).ids
    )
    again.save_pretrained(tmp_path / "copy")
    copy = _core.read_safetensors(tmp_path / "copy" / "model.safetensors", False)
    assert all(torch.equal(stored[name], each) for name, each in copy.items())


@pytest.mark.parametrize("kind", KINDS)
def test_text_makes_four_bits_better(kind):
    before, found = made(kind), {}
    for method in METHODS:
        model = made(kind)
        model.quantize("int4", method, calibration=ids(32), ends="none")
        found[method] = apart(before, model)
    # Without a norm before a matrix there is little that scales can move into.
    most = 1.1 if kind == "norms after" else 0.95
    assert found["gptq"] < 0.8 * found["rtn"] and found["awq"] < most * found["rtn"], found


def test_a_matrix_sees_what_those_before_it_made_and_what_they_would_have():
    """The last matrix of a block in one go, with others that came quantized, and alone."""
    name = "model.layers.0.mlp.down_proj.weight"
    model, twice = made(), made()
    model.quantize("int4", "gptq", calibration=ids(), ends="none")
    twice.quantize("int4", "gptq", calibration=ids(), ends="none", keep=[name])
    twice.quantization = None
    others = [each for each, _ in twice.named_parameters() if each != name]
    twice.quantize("int4", "gptq", calibration=ids(), ends="none", keep=others)
    alone = made()
    alone.quantize("int4", "gptq", calibration=ids(), ends="none", keep=others)
    found = [each.quantization.blocks[name] for each in (model, twice, alone)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(found, 2))


def test_keys_and_values_that_heads_share_have_eight_bits():
    shape = ModelConfig(**SHAPE, vocab_size=90).to_dict()
    one_each = shape | {"num_key_value_heads": 4}
    for name in (f"model.layers.0.self_attn.{which}_proj.weight" for which in "kv"):
        for to in ("int4", "nf4"):
            assert plan(shape, to).formats[name] == "int8_g64"
        assert plan(one_each, "int4").formats[name] == "int4z_g64"
        assert plan(shape, "int4", ends="same").formats[name] == "int4z_g64"
    before, found = made(), {}
    for ends in ("int8", "same"):
        model = made()
        model.quantize("int4", "gptq", calibration=ids(32), ends=ends, keep=["model.embed*"])
        found[ends] = apart(before, model)
    assert found["int8"] < 0.95 * found["same"], found


def test_moved_scales_leave_the_model_as_it_is():
    """AWQ without rounding worth speaking of: what it multiplies here it divides there."""
    before, model = made(), made()
    model.quantize("int8", "awq", 32, calibration=ids(32), ends="none")
    name = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(
        dict(before.named_parameters())[name], dict(model.named_parameters())[name]
    )
    assert apart(before, model) < 2e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_again(method):
    first, second = made(), made()
    first.quantize("int4", method, calibration=ids())
    second.quantize("int4", method, calibration=ids())
    for name, blocks in first.quantization.blocks.items():
        assert torch.equal(blocks, second.quantization.blocks[name])


def test_a_text_is_read_in_part_and_measured_in_part(text):
    model = made()
    read, measured = rows_of(str(text), model.tokenizer, 64)
    whole = model.tokenizer.encode(text.read_text())
    assert measured[-1].tolist() == [*whole, model.tokenizer.eos_id][-64:]
    assert read.shape[1] == 64 and len(read) > len(measured)
    before = perplexity(model, measured)
    report = model.quantize("int4", "rtn", calibration=str(text))
    assert report.perplexity_before == before
    assert report.perplexity_after == perplexity(model, measured) != before
    with torch.no_grad():
        loss = torch.stack([model.loss(row[None, :-1], row[None, 1:]) for row in measured]).mean()
    assert report.perplexity_after == pytest.approx(math.exp(loss), rel=1e-5)


def test_groups_that_do_not_fit_are_halved_or_their_matrices_kept():
    shape = ModelConfig(
        vocab_size=100, hidden_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=200, max_position_embeddings=8,
    ).to_dict()  # fmt: skip
    found = plan(shape, "int4", group_size=128)
    assert found.formats["model.layers.0.self_attn.q_proj.weight"] == "int4z_g32"
    assert found.formats["model.embed_tokens.weight"] == "int8_g96"
    assert "model.layers.0.mlp.down_proj.weight" in found.kept  # 200 inputs
    assert plan(shape, "nf4").formats["model.layers.0.mlp.up_proj.weight"] == "nf4_g32x3"
    bytes_each = plan(shape, "int8")
    assert bytes_each.formats["model.layers.0.mlp.down_proj.weight"] == "int8_g200"
    assert bytes_each.formats["model.embed_tokens.weight"] == "int8_g32"
    assert plan(shape, "int8", group_size=0).formats["model.embed_tokens.weight"] == "int8_g96"
    same = plan(shape, "int4", ends="same", zero_point=False, keep=["*.mlp.*"])
    assert same.formats["model.embed_tokens.weight"] == "int4_g32"
    assert "model.layers.0.mlp.up_proj.weight" in same.kept


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"to": "int3"}, "int8, int4, nf4"),
        ({"to": "int4", "method": "magic"}, "rtn, gptq, awq"),
        ({"to": "int4", "group_size": 48}, "32, 64, 128"),
        ({"to": "nf4", "group_size": 0}, "32, 64, 128"),
        ({"to": "int8", "zero_point": True}, "Only int4"),
        ({"to": "int8", "ends": "both"}, "int8, same, none"),
        ({"to": "int8", "keep": ["*"]}, "No parameter is left"),
    ],
)
def test_what_is_unknown_is_refused(told, says):
    model = made()
    with pytest.raises(ConfigError, match=says):
        model.quantize(**told, calibration=ids())
    assert model.quantization is None


def test_models_that_cannot_be_quantized_are_refused():
    model = made()
    model.quantize("int8", calibration=ids())
    with pytest.raises(ConfigError, match="quantized already"):
        model.quantize("int4", calibration=ids())

    damaged = made()
    name, weight = damaged.named_parameters()[1]
    with torch.no_grad():
        weight[0] = math.nan
    before = [each.detach().clone() for _, each in damaged.named_parameters()]
    with pytest.raises(DataError, match=f'"{name}" holds NaN'):
        damaged.quantize("int8", calibration=ids())
    after = [each.detach() for _, each in damaged.named_parameters()]
    assert all(a.equal(b) for a, b in zip(before[2:], after[2:], strict=True))

    silent = made()
    silent.tokenizer = None
    with pytest.raises(ConfigError, match="no tokenizer"):
        silent.quantize("int4", "gptq")
    assert silent.quantize("int4", "rtn").perplexity_before is None


def test_texts_that_cannot_be_read_are_refused(tmp_path):
    model = made()
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        model.quantize("int4", calibration=str(tmp_path / "nowhere.txt"))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError):
        model.quantize("int4", calibration=str(tmp_path / "empty.txt"))
    (tmp_path / "bytes.txt").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(DataError, match=r"bytes\.txt"):
        model.quantize("int4", calibration=str(tmp_path / "bytes.txt"))
    (tmp_path / "short.txt").write_text("A few words.")
    with pytest.raises(DataError, match="tokens only"):
        model.quantize("int4", calibration=str(tmp_path / "short.txt"))
    with pytest.raises(DataError, match="vocabulary"):
        model.quantize("int4", calibration=ids() + 1000)


def test_changed_weights_are_not_saved_as_old_blocks(tmp_path):
    model = made()
    model.quantize("int8", calibration=ids())
    with torch.no_grad():
        dict(model.named_parameters())["model.layers.1.mlp.up_proj.weight"].mul_(1.5)
    with pytest.raises(DataError, match=r"1\.mlp\.up_proj\.weight\" was changed since"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    model.quantization = None
    model.save_pretrained(tmp_path / "out")
    assert Model.from_pretrained(tmp_path / "out").quantization is None


@pytest.mark.parametrize(("to", "size"), [("int8", 0), ("int8", 64), ("int4", 32), ("int4", 64)])
@pytest.mark.parametrize("zero_point", [None, False])
def test_gguf_holds_the_same_numbers(to, size, zero_point, tmp_path):
    model = made()
    model.quantize(to, "rtn", size, calibration=ids(), zero_point=zero_point)
    model.save_gguf(tmp_path / "m.gguf")
    again = Model.from_pretrained(tmp_path / "m.gguf")
    for (name, one), (_, other) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    kinds = {kind for _, kind, _ in _core.GgufFile(tmp_path / "m.gguf").tensors()}
    of_four = "Q4_0" if zero_point is False else "Q4_1"
    assert kinds == {"F32", "Q8_0"} | ({of_four} if to == "int4" else set())


def test_gguf_has_nothing_for_nf4(tmp_path):
    model = made()
    model.quantize("nf4", "rtn", calibration=ids())
    with pytest.raises(ConfigError, match="No type of GGUF"):
        model.save_gguf(tmp_path / "m.gguf")
    model.save_gguf(tmp_path / "m.gguf", dtype="f32")


def described(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def change(folder: Path, **values) -> None:
    config = described(folder)
    config["quantization_config"] |= values
    (folder / "config.json").write_text(json.dumps(config))


def test_a_directory_says_what_it_holds(tmp_path):
    model = made()
    model.quantize("nf4", "gptq", 32, calibration=ids())
    model.save_pretrained(tmp_path)
    found = described(tmp_path)["quantization_config"]
    assert found["quant_method"] == "omnima" and found["version"] == 1
    assert (found["to"], found["method"], found["group_size"]) == ("nf4", "gptq", 32)
    assert found["formats"]["model.embed_tokens.weight"] == "int8_g64"
    assert "model.norm" in found["modules_to_not_convert"]
    card = (tmp_path / "README.md").read_text()
    assert "nf4 by gptq, groups of 32" in card and "AutoModelForCausalLM" not in card


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"version": 2}, "newer Omnima"),
        ({"version": "new"}, "version"),
        ({"formats": {}}, "formats"),
        ({"formats": {"model.norm.weight": "int8_g64"}}, "which is no matrix"),
        ({"formats": {"model.embed_tokens.weight": "int9_g64"}}, "no number format"),
        ({"formats": {"model.embed_tokens.weight": "int4_g48"}}, "multiple of 32"),
        ({"formats": {"model.embed_tokens.weight": "int8_g64"}}, "q_proj"),
    ],
)
def test_damaged_directories_are_refused_by_name(values, says, tmp_path):
    model = made()
    model.quantize("int4", "rtn", calibration=ids())
    model.save_pretrained(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(DataError, match=says) as refused:
        Model.from_pretrained(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("harm", ["missing", "short", "float"])
def test_damaged_tensors_are_refused_by_name(harm, tmp_path):
    model = made()
    model.quantize("int4", "rtn", calibration=ids())
    model.save_pretrained(tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = {key: each.clone() for key, each in _core.read_safetensors(file, False).items()}
    if harm == "missing":
        del tensors[name]
    elif harm == "short":
        tensors[name] = tensors[name][:, :-1].contiguous()
    else:
        tensors[name] = tensors[name].float()
    _core.write_safetensors(file, tensors, {"format": "pt"})
    with pytest.raises(DataError, match=name):
        Model.from_pretrained(tmp_path)


def test_nan_in_a_block_is_refused_or_warned_of(tmp_path):
    model = made()
    model.quantize("int8", calibration=ids())
    model.save_pretrained(tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.0.self_attn.q_proj.weight"
    tensors = {key: each.clone() for key, each in _core.read_safetensors(file, False).items()}
    tensors[name][0, :2] = 255  # a half that is no number
    _core.write_safetensors(file, tensors, {"format": "pt"})
    with pytest.raises(DataError, match=name):
        Model.from_pretrained(tmp_path, strict=True)
    with pytest.warns(UserWarning, match="NaN"):
        Model.from_pretrained(tmp_path)


def test_transformers_does_not_take_blocks_for_numbers(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = made()
    model.quantize("int8", calibration=ids())
    model.save_pretrained(tmp_path)
    with pytest.raises((ValueError, RuntimeError)):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "numbers", blocks=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "numbers")
    with torch.no_grad():
        assert torch.allclose(theirs(ids()).logits, model(ids()), atol=1e-3)
