"""The pictures of the page on quantization, drawn from a small model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import torch

from omnima import Model, ModelConfig, _core

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "draw_quantization.py"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_quantization", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def directory(tmp_path) -> Path:
    config = ModelConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    Model.from_config(config, seed=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def draw(drawing: ModuleType, monkeypatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["draw_quantization.py", *map(str, words)])
    drawing.main()


@pytest.mark.parametrize("to", ["int4", "nf4"])
def test_numbers_become_the_nearest_of_the_levels(drawing, to):
    row = torch.randn(1, 192, generator=torch.Generator().manual_seed(2))
    made, _ = drawing.rounded(drawing.format_of(to, 64, 192), row)
    for group in range(3):
        levels = torch.tensor(drawing.levels_of(to, row, group))
        assert len(levels) == 16
        numbers, near = row[0].view(3, 64)[group], made[0].view(3, 64)[group]
        nearest = levels[(numbers[:, None] - levels).abs().argmin(1)]
        torch.testing.assert_close(near, nearest, rtol=0, atol=1e-6)
        gaps = levels.diff()
        assert (gaps.max() < 1.01 * gaps.min()) == (to == "int4")


def test_an_error_is_of_all_matrices_of_a_kind(drawing):
    one, two = torch.randn(2, 8, 128, generator=torch.Generator().manual_seed(3))
    error, bits, numbers = drawing.cell([one, 3 * two], "int8", 0)
    all_rows = torch.cat([one, 3 * two])
    blocks = _core.quantize_matrix("rtn", "int8_g128", all_rows)
    made = _core.dequantized("int8_g128", blocks, [16, 128])
    assert error == pytest.approx(float((made - all_rows).norm() / all_rows.norm()), rel=1e-5)
    assert (bits, numbers) == (16 * (128 + 2) * 8, 16 * 128)
    assert drawing.cell([one[:, :96]], "int4", 64) is None


def test_two_pictures_are_written(drawing, directory, tmp_path, monkeypatch):
    draw(drawing, monkeypatch, directory, "--name", "a < b", "--out", tmp_path)
    for name in ("quantization-weights.svg", "quantization-errors.svg"):
        path = tmp_path / name
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg" and path.stat().st_size < 40_000
        assert "a < b" in root.find(f"{SVG}desc").text + root.find(f"{SVG}title").text
        assert "nan" not in path.read_text(encoding="utf-8")
    # 64 inputs are no group of 128, so only down, of 128, has an error there.
    shown = [each.text for each in root.iter(f"{SVG}text")]
    assert shown.count("–") == 7
    assert {"q", "down", "embedding", "normal numbers"} <= set(shown)


@pytest.mark.parametrize(
    "matrix, message",
    [("model.nothing", "no parameter of this model"), ("model.norm.weight", "whole groups of 64")],
)
def test_a_matrix_that_cannot_be_drawn(
    drawing, directory, tmp_path, monkeypatch, capsys, matrix, message
):
    with pytest.raises(SystemExit):
        draw(drawing, monkeypatch, directory, "--matrix", matrix, "--out", tmp_path)
    assert message in capsys.readouterr().err
