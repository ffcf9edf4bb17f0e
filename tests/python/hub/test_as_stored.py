"""Models that write with the weights as their files store them."""

from __future__ import annotations

import warnings

import pytest
import torch

import omnima
from omnima import Model, hub
from omnima.errors import ConfigError, DataError, OmnimaError

IDS = [5, 9, 200, 31, 7, 8, 9]


@pytest.fixture(scope="module")
def model():
    """Rows of 64 and of 256 numbers, so that blocks of 32 fit."""
    made = Model.from_preset("nima", vocab_size=320, seed=1, num_hidden_layers=2)
    with torch.no_grad():
        for _, parameter in made.named_parameters():
            parameter.mul_(3)  # else all tokens are as likely
    return made


@pytest.fixture(scope="module", params=["q8_0", "q4_0", "f16", "bf16", "f32"])
def gguf(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / f"{request.param}.gguf"
    model.save_gguf(path, request.param)
    return path


def written(model):
    return model.generate(IDS, max_new_tokens=12, temperature=0.0).ids


def test_a_gguf_file_writes_what_its_numbers_write(gguf):
    stored, numbers = Model.from_pretrained(gguf, dtype="auto"), Model.from_pretrained(gguf)
    assert written(stored) == written(numbers)
    ids = torch.tensor([IDS, IDS[::-1]])
    exact = torch.stack([numbers.engine.logits(row) for row in ids.tolist()])
    torch.testing.assert_close(stored(ids), exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(stored(ids), numbers(ids).detach(), rtol=0, atol=2e-3)
    assert stored.num_parameters == numbers.num_parameters
    assert stored.config == numbers.config
    assert stored.device == "cpu"
    assert stored.engine is stored.engine


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_directory_writes_what_its_numbers_write(model, tmp_path, dtype):
    model.save_pretrained(tmp_path, dtype)
    stored = Model.from_pretrained(tmp_path, dtype="auto")
    assert written(stored) == written(Model.from_pretrained(tmp_path))


def test_bfloat16_rounds_the_matrices(model, gguf, tmp_path):
    rounded = Model.from_pretrained(gguf)
    with torch.no_grad():
        for _, parameter in rounded.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.to(torch.bfloat16))
    stored = Model.from_pretrained(gguf, dtype="bfloat16")
    assert written(stored) == written(rounded)
    ids = torch.tensor([IDS])
    torch.testing.assert_close(stored(ids), rounded(ids).detach(), rtol=0, atol=2e-3)


def test_what_needs_float32_says_so(gguf, tmp_path):
    stored = Model.from_pretrained(gguf, dtype="auto")
    ids = torch.tensor([IDS])
    for act in (
        lambda: stored.loss(ids[:, :-1], ids[:, 1:]),
        lambda: stored.save_pretrained(tmp_path),
        lambda: stored.save_gguf(tmp_path / "x.gguf"),
        lambda: stored.named_parameters(),
        lambda: stored.resize(400),
        lambda: omnima._core.TrainStep(stored.core, omnima._core.StepOptions()),
    ):
        with pytest.raises(OmnimaError, match='dtype="float32"'):
            act()
    assert list(tmp_path.iterdir()) == []
    stored.close()
    with pytest.raises(OmnimaError, match="closed"):
        stored.generate(IDS)


def test_an_unknown_dtype_or_device_is_refused(gguf):
    with pytest.raises(ConfigError, match="float32, auto, bfloat16"):
        Model.from_pretrained(gguf, dtype="int3")
    if torch.cuda.is_available():
        with pytest.raises(ConfigError, match="computes on the CPU"):
            Model.from_pretrained(gguf, "cuda", dtype="auto", activations="int8")
    else:
        with pytest.raises(ConfigError, match="Take device cpu"):
            Model.from_pretrained(gguf, "cuda", dtype="auto")


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16", "f32"])
def test_damage_is_said_without_a_look_at_every_number_by_hand(model, tmp_path, kind):
    path = tmp_path / "damaged.gguf"
    model.save_gguf(path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Model.from_pretrained(path, dtype="auto", strict=True)
    file = hub.open_gguf(path)
    name = "blk.1.ffn_up.weight"
    tensor = file.read(name, True)
    content = bytearray(path.read_bytes())
    start = content.index(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    size = {"q8_0": 34, "q4_0": 18, "f16": 2, "f32": 4}[kind]
    content[start + 5 * size : start + 6 * size] = b"\xff" * size
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="blk.1.ffn_up.weight"):
        Model.from_pretrained(path, dtype="auto")
    with pytest.raises(DataError, match="blk.1.ffn_up.weight"):
        Model.from_pretrained(path, dtype="auto", strict=True)


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True}, {"qk_norm": True}])
def test_rows_of_heads_in_another_order_stay_where_they_are(changes, tmp_path):
    """Where only half of a head turns, files have its numbers in another order than we do."""
    made = Model.from_preset(
        "nima", vocab_size=320, seed=2, num_hidden_layers=2, partial_rotary_factor=0.5, **changes
    )
    with torch.no_grad():
        for _, parameter in made.named_parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    made.save_pretrained(tmp_path)
    stored, numbers = Model.from_pretrained(tmp_path, dtype="auto"), Model.from_pretrained(tmp_path)
    assert torch.equal(stored.engine.logits(IDS), numbers.engine.logits(IDS))
    for (name, ours), (_, theirs) in zip(
        made.named_parameters(), numbers.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
