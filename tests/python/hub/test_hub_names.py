"""Models and tokenizers by their name on the hub: what is fetched, and every refusal."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from omnima import Model, Tokenizer, _core
from omnima._hub_client import in_our_words
from omnima._places import HubName, find_model, hub_name
from omnima.cli.app import main
from omnima.errors import ConfigError, DataError, OmnimaError
from omnima.hub import open_tokenizer

from .conftest import files_of
from .fake_hub import TOKEN, Hub


@pytest.fixture
def uploaded(hub: Hub, small_model: Path) -> Hub:
    more = {"pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"no", "README.md": b"# Me"}
    hub.add("some/model", {**files_of(small_model), **more})
    return hub


def same(one: Model, other: Model) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_model_of_the_hub_is_the_one_that_was_put_there(uploaded: Hub, small_model: Path) -> None:
    model = Model.from_pretrained("some/model")
    assert same(model, Model.from_pretrained(small_model))
    assert model.tokenizer is not None
    assert "model.safetensors" in uploaded.fetched() and "config.json" in uploaded.fetched()
    assert not [each for each in uploaded.fetched() if each.endswith(".bin") or "/" in each]


def test_what_is_cached_is_not_fetched_again(uploaded: Hub) -> None:
    Model.from_pretrained("some/model")
    before = uploaded.fetched()
    Model.from_pretrained("some/model")
    assert uploaded.fetched() == before


def test_offline_takes_the_cache_and_says_what_it_lacks(
    uploaded: Hub, monkeypatch: pytest.MonkeyPatch, small_model: Path
) -> None:
    Model.from_pretrained("some/model")
    asked = len(uploaded.asked)
    offline(monkeypatch)
    assert same(Model.from_pretrained("some/model"), Model.from_pretrained(small_model))
    for name in ("some/other", "some/model/a.gguf"):
        with pytest.raises(OmnimaError, match="HF_HUB_OFFLINE forbids"):
            Model.from_pretrained(name)
    assert len(uploaded.asked) == asked


def test_a_partly_cached_model_is_not_taken_for_a_whole_one(
    uploaded: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokenizer.from_pretrained("some/model")
    offline(monkeypatch)
    with pytest.raises(OmnimaError, match="not wholly, in the cache"):
        Model.from_pretrained("some/model")


def test_without_a_connection_the_cache_serves(
    uploaded: Hub, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    Model.from_pretrained("some/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert same(Model.from_pretrained("some/model"), Model.from_pretrained(small_model))
    with pytest.raises(OmnimaError, match="neither a directory or file here nor in the cache"):
        Model.from_pretrained("runs/missing")


def test_shards_are_fetched_by_their_index(hub: Hub, small_model: Path) -> None:
    files = files_of(small_model)
    whole = _core.read_safetensors(small_model / "model.safetensors")
    folder = small_model.parent / "shards"
    folder.mkdir(exist_ok=True)
    names, where = sorted(whole), {}
    for part, chosen in (("one.safetensors", names[:3]), ("two.safetensors", names[3:])):
        _core.write_safetensors(folder / part, {name: whole[name] for name in chosen}, {})
        where |= dict.fromkeys(chosen, part)
    index = json.dumps({"weight_map": where}).encode()
    shards = {**files_of(folder), "model.safetensors.index.json": index}
    hub.add("some/both", {**files, **shards})  # the whole goes first, as in a directory
    assert same(Model.from_pretrained("some/both"), Model.from_pretrained(small_model))
    assert "one.safetensors" not in hub.fetched()
    del files["model.safetensors"]
    hub.add("some/shards", {**files, **shards})
    assert same(Model.from_pretrained("some/shards"), Model.from_pretrained(small_model))


def test_a_hostile_index_fetches_nothing_else(hub: Hub, small_model: Path) -> None:
    files = files_of(small_model)
    del files["model.safetensors"]
    deep = b"[" * 100_000
    for index in (b"{", b"[]", b'{"weight_map": {"a": "*.bin", "b": "../x.safetensors"}}', deep):
        repository = {**files, "x.bin": b"pickle", "model.safetensors.index.json": index}
        hub.add("some/hostile", repository)
        shutil.rmtree(Path(os.environ["HF_HOME"]), ignore_errors=True)
        with pytest.raises(DataError, match="pickles"):
            Model.from_pretrained("some/hostile")
    assert not any(each.endswith((".bin", ".safetensors")) for each in hub.fetched())
    del repository["x.bin"]
    hub.add("some/index", repository)
    with pytest.raises(DataError, match=r"its model\.safetensors\.index\.json names no shard"):
        Model.from_pretrained("some/index")


def test_revisions(hub: Hub, small_model: Path) -> None:
    files = files_of(small_model)
    repository = hub.add("some/model", files)
    first = repository.revisions["main"]
    changed = json.loads(files["config.json"]) | {"rms_norm_eps": 0.05}
    repository.commit({"config.json": json.dumps(changed).encode()}, "refs/pr/1")
    repository.commit({"config.json": json.dumps(changed).encode()}, "main")
    theirs = [
        Model.from_pretrained("some/model"),
        Model.from_pretrained(f"some/model@{first}"),
        Model.from_pretrained("some/model", revision=first),
    ]
    assert [each.config.norm_eps for each in theirs] == [0.05, 1e-5, 1e-5]
    with pytest.raises(ConfigError, match="no such revision"):
        Model.from_pretrained("some/model@v9")
    with pytest.raises(ConfigError, match="give one"):
        Model.from_pretrained("some/model@v9", revision="v8")
    with pytest.raises(ConfigError, match="only those have one"):
        Model.from_pretrained(small_model, revision="v8")


def test_a_directory_goes_before_the_hub(
    uploaded: Hub, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_model, "some/model")
    assert find_model("some/model") == Path("some/model")
    assert Model.from_pretrained("some/model").tokenizer is not None
    assert Tokenizer.from_pretrained("some/model").kind == "byte"
    assert uploaded.asked == []


def test_gguf_files_are_chosen_by_name(hub: Hub, small_model: Path, tmp_path: Path) -> None:
    from omnima.hub import save_gguf

    model = Model.from_pretrained(small_model)
    save_gguf(model.config.to_dict(), model.named_parameters(), tmp_path / "a.gguf", dtype="f32")
    hub.add("some/gguf", {"tiny.F32.gguf": (tmp_path / "a.gguf").read_bytes(), "x.md": b"x"})
    with pytest.raises(ConfigError, match=r"choose one of tiny\.F32\.gguf, as in some/gguf/tiny"):
        Model.from_pretrained("some/gguf")
    assert same(Model.from_pretrained("some/gguf/tiny.F32.gguf"), model)
    assert find_model("some/gguf/tiny.F32.gguf@main").is_file()
    with pytest.raises(DataError, match="holds no tokenizer"):
        open_tokenizer("some/gguf/tiny.F32.gguf")
    with pytest.raises(ConfigError, match=r"has no file no\.gguf; its GGUF files: tiny\.F32\.gguf"):
        Model.from_pretrained("some/gguf/no.gguf")


def test_repositories_without_a_model_are_refused_with_the_way_out(
    hub: Hub, small_model: Path
) -> None:
    config = {"config.json": (small_model / "config.json").read_bytes()}
    hub.add("some/pickles", {**config, "pytorch_model.bin": b"pickle"})
    with pytest.raises(DataError, match=r"only as pickles \(pytorch_model\.bin\)"):
        Model.from_pretrained("some/pickles")
    hub.add("some/bare", config)
    with pytest.raises(DataError, match=r"it has no model\.safetensors, only config\.json"):
        Model.from_pretrained("some/bare")
    hub.add("some/empty", {f"{number}.txt": b"" for number in range(10)})
    with pytest.raises(DataError, match=r"no config\.json, only 0\.txt.* and 2 more"):
        Model.from_pretrained("some/empty")
    with pytest.raises(DataError, match=r"none of tokenizer\.json, tokenizer\.model, vocab\.json"):
        Tokenizer.from_pretrained("some/bare")
    assert not any(each.endswith(".bin") for each in hub.fetched())


def test_who_may_read(uploaded: Hub, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded.add("some/private", files_of(small_model), private=True)
    uploaded.add("some/gated", files_of(small_model), gated=True)
    for name in ("some/private", "some/nothing"):
        with pytest.raises(ConfigError, match="that you may read.*HF_TOKEN"):
            Model.from_pretrained(name)
    with pytest.raises(ConfigError, match="some/gated is gated.*Accept them at"):
        Model.from_pretrained("some/gated")
    with pytest.raises(ConfigError, match="Accept them at http://[^/]*/some/gated. Log in"):
        Model.from_pretrained("some/gated/a.gguf")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert same(Model.from_pretrained("some/private"), Model.from_pretrained("some/gated"))


def test_answers_of_the_hub_are_passed_on_without_the_token(
    uploaded: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for status, said in ((403, "the hub refuses"), (418, "answers 418: out of order, (token)")):
        uploaded.failing = status
        with pytest.raises(OmnimaError) as refused, in_our_words("some/model"):
            HfApi().list_repo_files("some/model")
        assert said in str(refused.value) and TOKEN not in str(refused.value)


def test_no_part_of_the_token_is_shown_where_a_message_is_cut(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(OmnimaError) as failed, in_our_words("some/model"):
        raise ConnectionError("x" * 290 + TOKEN)
    assert "hf_" not in str(failed.value)


def test_a_full_disk_is_no_lost_connection(hub: Hub) -> None:
    with pytest.raises(OSError, match="No space left"), in_our_words("some/model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OmnimaError, match="cannot be reached"), in_our_words("some/model"):
        raise ConnectionError("reset")


def test_without_the_extra_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OmnimaError, match=r'pip install "omnima\[hub\]"'):
        Model.from_pretrained("some/model")


@pytest.mark.parametrize(
    "text",
    [
        "gpt2",
        "./a/b",
        "/a/b",
        "a/b/c",
        "a/b/c.bin",
        "a..b/c",
        "a--b/c",
        "a/b@",
        "a/b/../c.gguf",
        "-a/b",
        "a/b.",
        "",
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert HubName.read(text) is None


def test_names_are_read_and_written_back() -> None:
    for text in ("a/b", "a/b@main", "a/b/c.gguf", "a/b/d/c.Q4_0.gguf@refs/pr/3"):
        name = HubName.read(text)
        assert name is not None and str(name) == text
    assert hub_name("a/b", "v1") == HubName("a/b", None, "v1")


def test_names_that_the_hub_refuses_by_form(hub: Hub) -> None:
    from huggingface_hub import HfApi

    with pytest.raises(ConfigError, match="no name that the hub takes"), in_our_words("a//b"):
        HfApi().list_repo_files("a//b")


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no directory .*absent, nor a file.*owner/name"):
        find_model(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("Dear diary")
    with pytest.raises(ConfigError, match="is a file, but not of GGUF"):
        find_model(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="is a file: give the directory of a tokenizer"):
        Tokenizer.from_pretrained(tmp_path / "notes.txt")
    (tmp_path / "a.Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"give one of its GGUF files, such as .*a\.Q8_0\.gguf"):
        find_model(tmp_path)


def test_commands_take_names_of_the_hub(uploaded: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["info", "some/model", "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"]["kind"] == "byte"
    with pytest.raises(SystemExit) as left:
        main(["generate", "some/missing", "--prompt", "x"])
    said = capsys.readouterr().err
    assert left.value.code == 1 and "Check the spelling" in said and said.count("\n") == 1
