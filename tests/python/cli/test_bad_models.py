"""Files that are no model, text that is no text and places that take nothing: one clear line from
every command that is given them, and nothing is left behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omnima import Model, Tokenizer

from .conftest import Says

COMMANDS = {
    "quantize": ["--to", "int8", "--out", "out"],
    "export": ["--to", "gguf", "--out", "out"],
    "import": ["--out", "out"],
    "verify": ["--against", "transformers"],
    "generate": ["--prompt", "a"],
    "bench": ["--peers", "none", "--rounds", "1", "--seconds", "0.01"],
    "profile": ["--new-tokens", "3"],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with a model and what is none beside it."""
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train(["abc"], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    model.save_pretrained("model")
    model.save_gguf("whole.gguf")
    whole = Path("whole.gguf").read_bytes()
    Path("cut.gguf").write_bytes(whole[: len(whole) // 2])
    Path("empty.gguf").write_bytes(b"")
    Path("text.txt").write_text("The king had a cow.\n" * 99)
    Path("void").mkdir()
    Path("pickles").mkdir()
    shutil.copy("model/config.json", "pickles")
    Path("pickles/pytorch_model.bin").write_bytes(b"x")
    shutil.copytree("model", "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:900_000])
    return tmp_path


def line_of(command: str, given: str) -> list[str]:
    model = {"bench": ["decode", "--model"], "profile": ["generate", "--model"]}.get(command, [])
    return [command, *model, given, *COMMANDS[command], "--json"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_named(command: str, place: Path, refused: Says) -> None:
    before = sorted(place.iterdir())
    for given, message in {
        "nowhere": "no directory nowhere, nor a file of that name",
        "void": "void holds no config.json",
        "pickles": "pickles (pytorch_model.bin), which can run code when read",
        "text.txt": "text.txt is a file, but not of GGUF",
        "empty.gguf": "empty.gguf is a file, but not of GGUF",
        "cut.gguf": "it was cut short. Fetch or save it again",
        "cut": "model.safetensors, tensor",
    }.items():
        assert message in refused(*line_of(command, given))
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("command", ["quantize", "export", "import"])
def test_places_that_take_nothing_are_refused_before_the_work(
    command: str, place: Path, refused: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "from_pretrained", lambda *_, **__: pytest.fail("it was read"))
    line = line_of(command, "model")
    out = line.index("out")
    line[out] = "text.txt/below"
    assert "text.txt is a file; name another directory" in refused(*line)
    line[out] = "model"
    wanted = "give the name of a file" if command == "export" else "give a new or an empty"
    assert wanted in refused(*line)
    if command != "export":
        line[out] = "text.txt"
        assert "text.txt is there already" in refused(*line)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Käse\n".encode("latin-1"), "line 1: byte 0xe4 at column 2 is not UTF-8"),
        (b"", "the file is empty"),
        (b"a", "has 3 tokens only"),
    ],
)
def test_calibration_text_that_is_none(
    content: bytes, message: str, place: Path, refused: Says
) -> None:
    Path("bad.txt").write_bytes(content)
    said = refused("quantize", "model", "--to", "int4", "--calibration", "bad.txt", "--out", "o")
    assert message in said and "bad.txt" in said and "The calibration text" in said
    assert "on_error" not in said and not Path("o").exists()


@pytest.mark.parametrize("given", ["text.txt", "whole.gguf"])
def test_a_file_is_not_pushed_alone(given: str, place: Path, refused: Says) -> None:
    assert "give the directory that it lies in" in refused("push", given, "ada/model")
