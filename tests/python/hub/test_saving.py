"""Saved directories: shards as transformers cuts them, all files put in place together."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from omnima import Model, hub
from omnima.errors import ConfigError, DataError
from omnima.hub import saving
from omnima.hub.fields import architecture_of

SIZES = [100, 5_000, "20KB", "1GB"]


def same(one: Model, other: Model) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.fixture
def model(small_model: Path) -> Model:
    return Model.from_pretrained(small_model)


@pytest.mark.parametrize("size", SIZES)
def test_shards_are_those_of_huggingface_hub(model: Model, tmp_path: Path, size: int | str) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    model.save_pretrained(tmp_path, max_shard_size=size)
    given = {name: each.detach().clone() for name, each in model.named_parameters()}
    config = model.config.to_dict()
    tensors = architecture_of(config).names.from_ours(given, config)
    theirs = split_torch_state_dict_into_shards(tensors, max_shard_size=size)
    files = sorted(each.name for each in tmp_path.glob("*.safetensors"))
    assert len(files) == len(theirs.filename_to_tensors)
    if len(files) == 1:
        assert files == ["model.safetensors"] and not (tmp_path / saving.INDEX).exists()
        return
    index = json.loads((tmp_path / saving.INDEX).read_text())
    assert index["metadata"]["total_size"] == theirs.metadata["total_size"]
    assert index["metadata"]["total_parameters"] == model.num_parameters
    assert index["weight_map"] == theirs.tensor_to_filename
    assert same(Model.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_load_in_transformers(model: Model, tmp_path: Path, dtype: str) -> None:
    import transformers

    model.save_pretrained(tmp_path, dtype, max_shard_size="10KB")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 99, 3, 1, 200]])
    ours = Model.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)
    theirs.save_pretrained(tmp_path / "back", max_shard_size="10KB")
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 1
    assert same(Model.from_pretrained(tmp_path / "back"), ours)


def test_another_number_of_files_replaces_the_old_ones(model: Model, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    counts = []
    for size in ("5KB", "20KB", "1GB", "10KB"):
        model.save_pretrained(tmp_path, max_shard_size=size)
        counts.append(len(list(tmp_path.glob("*.safetensors"))))
        assert same(Model.from_pretrained(tmp_path), model)
        assert (tmp_path / saving.INDEX).exists() == (counts[-1] > 1)
    assert counts[0] > counts[1] > counts[2] == 1 < counts[3]
    assert not (tmp_path / "certificate.json").exists()  # it was of other weights
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("size", [0, -5, True, "many", "0GB", 1.5, None])
def test_a_size_that_is_none_is_refused(model: Model, tmp_path: Path, size: Any) -> None:
    with pytest.raises(ConfigError, match="max_shard_size is"):
        model.save_pretrained(tmp_path / "m", max_shard_size=size)
    assert not (tmp_path / "m").exists()


def test_killed_anywhere_it_is_the_old_model_the_new_one_or_none(
    small_model: Path, tmp_path: Path
) -> None:
    old = Model.from_pretrained(small_model)
    new = Model.from_pretrained(small_model)
    with torch.no_grad():
        for _, each in new.named_parameters():
            each.mul_(2)
    program = [sys.executable, str(Path(__file__).with_name("dying_saves.py"))]
    subprocess.run([*program, str(small_model), str(tmp_path)], check=True, timeout=300)
    seen = []
    for folder in sorted(tmp_path.glob("at-*"), key=lambda each: int(each.name[3:])):
        try:
            found = Model.from_pretrained(folder)
            seen.append("old" if same(found, old) else "new")
            assert seen[-1] == "old" or same(found, new)
        except ConfigError as error:
            assert re.search("holds no config.json", str(error))
            seen.append("none")
            with pytest.raises(DataError, match="has no config.json"):
                hub.load_pretrained(folder)
        new.save_pretrained(folder)  # the next save clears up
        assert same(Model.from_pretrained(folder), new) and not list(folder.glob(".saving*"))
    assert len(seen) > 5 and seen[-1] == "new" and {"old", "none"} <= set(seen)
    assert seen == sorted(seen, key=["old", "none", "new"].index)


def test_a_failed_save_leaves_the_old_model(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(saving, "write_config", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert same(Model.from_pretrained(tmp_path), model) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["generation_config.json", "certificate.json", "additional"])
def test_what_lies_where_files_go_is_said_before_anything_is_gone(
    model: Model, tmp_path: Path, name: str
) -> None:
    model.save_pretrained(tmp_path)
    assert model.tokenizer is not None
    model.tokenizer.chat_template = {"tool_use": "{{ tools }}"}
    if name == "additional":
        (tmp_path / "additional_chat_templates").write_text("")
    else:
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name}.* lies where the model's files go: move it"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "config.json").is_file()


def test_chat_templates_go_with_their_tokenizer(model: Model, tmp_path: Path) -> None:
    assert model.tokenizer is not None
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    more = tmp_path / "additional_chat_templates"
    assert (more / "tool_use.jinja").read_text() == "{{ tools }}"
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    model.tokenizer.chat_template = None
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "chat_template.jinja").exists() and not list(more.glob("*"))
