"""`omnima quantize` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omnima import Model, Tokenizer

KEYS = {
    "bits_per_weight",
    "bytes",
    "perplexity_before",
    "perplexity_after",
    "seconds",
    "kept_in_high_precision",
}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(["abc"], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path / "given")
    return tmp_path / "given"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"The king had {i} sons and {i * i} cows.\n" for i in range(300)))
    return path


@pytest.mark.parametrize("method", [(), ("--method", "rtn"), ("--method", "awq")])
def test_one_command_makes_a_model_small(method, given, text, tmp_path, leave):
    out = tmp_path / "small"
    command = ["quantize", given, "--to", "int4", *method, "--group-size", "32"]
    command += ["--calibration", text, "--out", out]
    code, printed, _ = leave([*command, "--json"])
    found = json.loads(printed)
    assert code == 0 and set(found) == KEYS
    assert 4 < found["bits_per_weight"] < 12 and found["seconds"] > 0
    assert found["bytes"] < (out / "model.safetensors").stat().st_size < found["bytes"] + 50_000
    assert 0.9 < found["perplexity_after"] / found["perplexity_before"] < 1.1
    assert "model.norm.weight" in found["kept_in_high_precision"]
    assert Model.from_pretrained(out)(torch.tensor([[1, 2]])).isfinite().all()

    code, printed, _ = leave(["generate", out, "--prompt", "The", "--max-new-tokens", 2])
    assert code == 0
    code, printed, _ = leave(["eval", out, "--data", text, "--json"])
    assert code == 0 and json.loads(printed)["perplexity"] > 1
    code, _, err = leave(command)
    assert code == 1 and "is there already" in err
    code, _, err = leave(["quantize", out, "--to", "int8", "--out", tmp_path / "x"])
    assert code == 1 and "quantized already" in err and not (tmp_path / "x").exists()


def test_what_it_prints_for_people(given, text, tmp_path, leave):
    command = ["quantize", given, "--to", "int8", "--calibration", text, "--out", tmp_path / "s"]
    code, printed, _ = leave(command)
    assert code == 0 and "perplexity_after" in printed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--to": "int3"}, "int8, int4, nf4"),
        ({"--method": "magic"}, "rtn, gptq, awq"),
        ({"--group-size": "7"}, "group_size is 7"),
        ({"--calibration": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_what_it_refuses(changes, says, given, text, tmp_path, leave):
    told = {"--to": "int4", "--calibration": text, "--out": tmp_path / "small", **changes}
    flags = [each for pair in told.items() for each in pair]
    code, _, err = leave(["quantize", given, *flags])
    assert code == 1 and says in err and not (tmp_path / "small").exists()
