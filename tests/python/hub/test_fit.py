"""Whether model and tokenizer belong together, damaged weights, and models as GGUF in commands."""

from __future__ import annotations

import base64
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omnima import Model, Tokenizer, _core
from omnima.cli.app import main
from omnima.errors import DataError
from omnima.hub import open_tokenizer, save_gguf

Copy = Callable[..., Path]


@pytest.fixture
def copy(small_model: Path, tmp_path: Path) -> Copy:
    """A copy of the model with another tokenizer and other fields of its config files."""

    def make(tokenizer: Tokenizer | None = None, **configs: dict[str, object]) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(small_model, folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        for name, fields in configs.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return folder

    return make


def with_rows(rows: int, tokenizer: Tokenizer, folder: Path) -> Path:
    model = Model.from_preset(
        "nima", vocab_size=rows, num_hidden_layers=1, hidden_size=6, num_attention_heads=1
    )
    model.tokenizer = tokenizer
    model.save_pretrained(folder)
    return folder


def test_a_tokenizer_that_fits_is_taken_without_a_word(small_model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Model.from_pretrained(small_model).tokenizer is not None


def test_ids_of_text_beyond_the_rows_are_refused(copy: Copy) -> None:
    larger = Tokenizer.train(["to be or not to be, that is the question"] * 9, "bpe", 300)
    with pytest.raises(DataError, match="300 ids, but the model only 259 rows.*another model's"):
        Model.from_pretrained(copy(larger))


def test_a_special_id_beyond_the_rows_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["abc"], "byte")
    folder = with_rows(tokenizer.vocab_size, tokenizer, tmp_path / "m")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    number = tokenizer.vocab_size
    content["added_tokens"].append({**content["added_tokens"][0], "id": number, "content": "<end>"})
    path.write_text(json.dumps(content))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": "<end>"}))
    with pytest.raises(DataError, match=f"eos token '<end>' has the id {number}"):
        Model.from_pretrained(folder)


def test_added_tokens_beyond_the_rows_are_named(copy: Copy) -> None:
    with pytest.warns(UserWarning, match="no rows for the tokenizer's added tokens '<image>'"):
        model = Model.from_pretrained(copy(_with_added("<image>")))
    assert model.tokenizer is not None and model.tokenizer.vocab_size == 260


def _with_added(token: str) -> Tokenizer:
    import dataclasses

    from omnima.tokenizers.description import ROLE_SPECIAL

    found = Tokenizer.train(["abc"], "byte").description
    return Tokenizer(
        dataclasses.replace(
            found, pieces=[*found.pieces, token], roles=[*found.roles, ROLE_SPECIAL]
        )
    )


def test_a_far_smaller_tokenizer_is_likely_another_models(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["abc"], "byte")
    folder = with_rows(5000, tokenizer, tmp_path / "m")
    with pytest.warns(UserWarning, match="259 ids, but the model 5,000"):
        Model.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Model.from_pretrained(with_rows(320, tokenizer, tmp_path / "n"))


def test_special_ids_of_the_config_files_are_compared(copy: Copy) -> None:
    folder = copy(
        config={"eos_token_id": 77, "bos_token_id": [1, 9]},
        generation_config={"eos_token_id": [78, 4000]},
    )
    with pytest.warns(UserWarning) as caught:
        Model.from_pretrained(folder)
    said = " ".join(str(each.message) for each in caught)
    assert "the tokenizer's eos token is '</s>' with the id 2, but the config files say 77" in said
    assert "eos_token_id is 4000 in its config files, but the model has 259 rows" in said
    assert "bos token" not in said  # one of several is it
    assert {each.filename for each in caught} == {__file__}


def test_damaged_weights_are_warned_of_or_refused(
    copy: Copy, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = copy()
    weights = _core.read_safetensors(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    _core.write_safetensors(folder / "model.safetensors", weights, {})
    with pytest.warns(UserWarning, match="NaN or infinity in model.norm.weight"):
        model = Model.from_pretrained(folder)
    with pytest.raises(DataError, match="damaged; take an earlier"):
        Model.from_pretrained(folder, strict=True)
    with pytest.warns(UserWarning, match="The model to save: NaN or infinity"):
        model.save_gguf(tmp_path / "m.gguf", dtype="f32")
    text = tmp_path / "text.txt"
    text.write_text("To be")
    for given, name in ((folder, "model.norm"), (tmp_path / "m.gguf", "output_norm")):
        for command in (("info",), ("generate", "--prompt", "a"), ("eval", "--data", str(text))):
            with pytest.raises(SystemExit) as left:
                main([command[0], str(given), *command[1:], "--strict"])
            assert left.value.code == 1
            assert f"NaN or infinity in {name}.weight" in capsys.readouterr().err


def test_commands_take_gguf_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(f"{a}{b} the {b}{a}\n" for a in "abcdefgh" for b in "ijklmnop")
    (tmp_path / "text.txt").write_text(text)
    folder = with_rows(260, _byte_level(tmp_path), tmp_path / "m")
    model = Model.from_pretrained(folder)
    path = str(tmp_path / "m.gguf")
    save_gguf(model.config.to_dict(), model.named_parameters(), path, model.tokenizer, "f32")

    def result(*arguments: str) -> dict[str, object]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--json"])
        out, err = capsys.readouterr()
        assert left.value.code == 0, err
        found: dict[str, object] = json.loads(out)
        return found

    info, same = result("info", path), result("info", str(folder))
    assert info["parts"] == same["parts"] and list(info["files"]) == ["m.gguf"]  # type: ignore[call-overload]
    data = ("--data", str(tmp_path / "text.txt"))
    assert result("eval", path, *data) == result("eval", str(folder), *data)
    written = [
        result("generate", each, "--prompt", "ab", "--temperature", "0", "--max-new-tokens", "4")
        for each in (path, str(folder))
    ]
    assert written[0]["text"] == written[1]["text"]
    assert result("tokenize", path, "--text", "the")["ids"] == model.tokenizer.encode("the")  # type: ignore[union-attr]
    assert open_tokenizer(path).vocab_size == 260
    stats = result("data", "stats", str(tmp_path / "text.txt"), "--tokenizer", path)
    assert "tokens" in json.dumps(stats)


def test_runs_take_tokenizers_and_curricula_of_gguf_files(tmp_path: Path) -> None:
    from omnima.training.display import Display
    from omnima.training.foresight import job_of_recipe
    from omnima.training.launch import train
    from omnima.training.recipe import Recipe

    text = "".join(f"{a}{b} the {b * n}{a}\n" for n, a in enumerate("abcdefgh") for b in "ijklmnop")
    (tmp_path / "text.txt").write_text(text)
    model = Model.from_pretrained(with_rows(260, _byte_level(tmp_path), tmp_path / "m"))
    path = tmp_path / "m.gguf"
    save_gguf(model.config.to_dict(), model.named_parameters(), path, model.tokenizer, "f32")
    recipe = Recipe.from_layers(
        {
            "data": [str(tmp_path / "text.txt")],
            "document_break": "the",
            "tokenizer": str(path),
            "curriculum": str(path),
            "model": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
            "context": 16,
            "batch_size": 2,
            "steps": 2,
            "samples": 0,
            "precision": "fp32",
            "out": str(tmp_path / "run"),
        }
    )
    assert job_of_recipe(recipe, "fp32").model.vocab_size == 260
    run = train(recipe, display=Display(silent=True))
    saved = Model.from_pretrained(run.path).tokenizer
    assert saved is not None and saved.fingerprint == open_tokenizer(path).fingerprint


def _byte_level(folder: Path) -> Tokenizer:
    tokens = [bytes([number]) for number in range(256)] + [b"th", b"the", b" the"]
    lines = [f"{base64.b64encode(each).decode()} {rank}" for rank, each in enumerate(tokens)]
    (folder / "ranks").write_text("\n".join(lines) + "\n")
    return Tokenizer.from_rank_file(folder / "ranks", "llama3")
