"""Quantized models that write with activations in 8 bits: nearly what they write exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omnima import Model
from omnima.cli.app import main
from omnima.errors import ConfigError

IDS = [5, 9, 200, 31, 7, 8, 9]


@pytest.fixture(scope="module")
def model() -> Model:
    """Rows of 64 and of 256 numbers."""
    made = Model.from_preset("nima", vocab_size=320, seed=1, num_hidden_layers=2)
    with torch.no_grad():
        for _, parameter in made.named_parameters():
            parameter.mul_(3)  # else all tokens are as likely
    return made


def opened(path: Path, activations: str = "int8") -> Model:
    return Model.from_pretrained(path, dtype="auto", activations=activations)


def assert_near(path: Path) -> None:
    exact, rounded = opened(path, "float32"), opened(path)
    for stepwise in (False, True):
        wanted = exact.engine.logits(IDS, stepwise)
        found = rounded.engine.logits(IDS, stepwise)
        assert not torch.equal(found, wanted)
        assert (found - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_a_gguf_file_is_nearly_what_it_is_exactly(kind: str, model: Model, tmp_path: Path) -> None:
    model.save_gguf(tmp_path / "m.gguf", kind)
    assert_near(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("to", "group_size", "zero_point"),
    [("int8", 0, None), ("int8", 64, None), ("int4", 64, False), ("int4", 32, True)],
)
def test_a_quantized_directory_is_nearly_what_it_is_exactly(
    to: str, group_size: int, zero_point: bool | None, tmp_path: Path
) -> None:
    small = Model.from_preset("nima", vocab_size=320, seed=1, num_hidden_layers=2)
    small.quantize(to, "rtn", group_size, zero_point=zero_point)
    small.save_pretrained(tmp_path)
    assert_near(tmp_path)


def test_activations_that_meet_no_matrix_are_refused(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match='"int8" would change nothing.* `omnima quantize`'):
        opened(tmp_path)
    with pytest.raises(ConfigError, match='"bf16" would change nothing.*dtype="bfloat16"'):
        opened(tmp_path, "bf16")


def test_a_sequence_does_not_depend_on_those_beside_it(model: Model, tmp_path: Path) -> None:
    from omnima.generation import generate

    model.save_gguf(tmp_path / "m.gguf", "q4_0")
    rounded = opened(tmp_path / "m.gguf")
    prompts = [IDS[:length] for length in range(1, 8)]
    together = generate(rounded, None, prompts, max_new_tokens=9, temperature=0.0)
    alone = [rounded.generate(prompt, max_new_tokens=9, temperature=0.0).ids for prompt in prompts]
    assert [each.ids for each in together] == alone


def test_what_has_no_such_activations_says_so(model: Model, tmp_path: Path) -> None:
    model.save_gguf(tmp_path / "m.gguf", "q8_0")
    with pytest.raises(ConfigError, match='take dtype="auto", not "float32"'):
        Model.from_pretrained(tmp_path / "m.gguf", activations="int8")
    with pytest.raises(ConfigError, match='activations is "int4"; the choices'):
        Model.from_pretrained(tmp_path / "m.gguf", dtype="auto", activations="int4")


def test_the_commands_take_them(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path)
    common = ["profile", "generate", "--model", str(tmp_path), "--format", "int8", "--json"]
    common += ["--prompt-tokens", "4", "--new-tokens", "4", "--activations"]
    with pytest.raises(SystemExit) as done:
        main([*common, "int8"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)["tokens_per_s"] > 0
    with pytest.raises(SystemExit) as done:
        main([*common, "int2"])
    assert done.value.code == 1
    assert 'activations is "int2"' in capsys.readouterr().err
