"""Weights go from their files into the parameters in one pass: the same numbers as read one by one,
no second copy in memory, no room drawn full first.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import omnima
from omnima import _core, hub
from omnima.config import ModelConfig
from omnima.errors import DataError
from omnima.hub.names import expected_shapes

SHAPE: dict[str, Any] = dict(
    vocab_size=70, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, norm_eps=1e-6,
    head_dim=8, tie_word_embeddings=False,
)  # fmt: skip
BIASED = {"norm": "layer_norm", "attention_bias": True, "mlp_bias": True}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mixtral": {"num_experts": 4, "router_z_loss_coef": 0.0, "moe_intermediate_size": 64},
    "gemma": {
        "activation": "geglu_tanh", "embedding_multiplier": 32**0.5, "tie_word_embeddings": True
    },
    "phi 3": {"partial_rotary_factor": 0.75},
    "gpt-2": {**BIASED, "positions": "learned", "activation": "gelu_tanh"},
    "neox": {**BIASED, "activation": "gelu", "partial_rotary_factor": 0.25},
}  # fmt: skip


def config_of(kind: str) -> dict[str, Any]:
    return ModelConfig(**{**SHAPE, **KINDS[kind]}).to_dict()


def parameters(config: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [(name, torch.randn(shape)) for name, shape in expected_shapes(config).items()]


def assert_filled(path: Path, expected: dict[str, torch.Tensor]) -> None:
    found = dict(omnima.Model.from_pretrained(path).named_parameters())
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        assert parameter.requires_grad and parameter.is_leaf
        assert torch.equal(parameter, expected[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_fills_a_model(kind: str, dtype: str, tmp_path: Path) -> None:
    config = config_of(kind)
    hub.save_pretrained(config, parameters(config), tmp_path, dtype=dtype)
    assert_filled(tmp_path, hub.load_pretrained(tmp_path)[1])


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_file_fills_a_model(kind: str, dtype: str, tmp_path: Path) -> None:
    config = config_of(kind)
    hub.save_gguf(config, parameters(config), tmp_path / "m.gguf", dtype=dtype)
    assert_filled(tmp_path / "m.gguf", hub.load_gguf(tmp_path / "m.gguf")[1])


def test_halves_of_a_directory_are_widened(tmp_path: Path) -> None:
    config = config_of("llama")
    given = {name: each.half() for name, each in parameters(config)}
    hub.save_pretrained(config, parameters(config), tmp_path)
    _core.write_safetensors(tmp_path / "model.safetensors", given, {})
    assert_filled(tmp_path, {name: each.float() for name, each in given.items()})


def test_other_devices_are_filled_by_copies(tmp_path: Path) -> None:
    config = config_of("llama")
    given = parameters(config)
    hub.save_pretrained(config, given, tmp_path)
    elsewhere = [(name, each.to("meta")) for name, each in given]
    before = [each._version for _, each in elsewhere]
    hub.open_pretrained(tmp_path).fill(elsewhere)
    assert [each._version for _, each in elsewhere] == [version + 1 for version in before]


@pytest.mark.parametrize("file", ["directory", "m.gguf"])
def test_damaged_weights_warn_or_are_refused(file: str, tmp_path: Path) -> None:
    config, path = config_of("llama"), tmp_path / file
    given = parameters(config)
    dict(given)["model.layers.1.self_attn.k_proj.weight"][3, 5] = float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if file == "directory":
            hub.save_pretrained(config, given, path)
            stored = hub.open_pretrained(path)
        else:
            hub.save_gguf(config, given, path, dtype="f16")
            stored = hub.open_gguf(path)
    name = stored.names.shapes(config).keys()
    damaged = next(each for each in name if "1." in each and ("k_proj" in each or "_k." in each))
    with pytest.warns(UserWarning, match=f"NaN or infinity in {damaged}. The model is damaged"):
        omnima.Model.from_pretrained(path)
    with pytest.raises(DataError, match=f"{file}: NaN or infinity in {damaged}"):
        stored.fill(given, strict=True)


def test_every_parameter_must_be_filled(tmp_path: Path) -> None:
    config = config_of("llama")
    hub.save_pretrained(config, parameters(config), tmp_path)
    more = [*parameters(config), ("model.more.weight", torch.zeros(3))]
    with pytest.raises(DataError, match=r"no tensor holds model\.more\.weight"):
        hub.open_pretrained(tmp_path).fill(more)


_LOAD = """
import sys
import omnima, omnima.hub, omnima.tokenizers

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

before = memory("VmRSS")
model = omnima.Model.from_pretrained(sys.argv[1])
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: not Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "q8_0"])
def test_there_is_no_second_copy_in_memory(dtype: str, tmp_path: Path) -> None:
    # 24M parameters, the largest tensor a twelfth of them.
    config = ModelConfig(
        vocab_size=4096, hidden_size=512, intermediate_size=2048, num_hidden_layers=5,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=64,
    )  # fmt: skip
    model = omnima.Model.from_config(config)
    bytes_of_parameters = 4 * model.num_parameters
    path = tmp_path / "model"
    if dtype == "q8_0":
        hub.save_gguf(config.to_dict(), model.named_parameters(), path, dtype=dtype)
    else:
        model.save_pretrained(path, dtype=dtype)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout)
    assert bytes_of_parameters < peak < 1.3 * bytes_of_parameters + 8e6
