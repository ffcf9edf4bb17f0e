"""Uploads to a hub: what is checked, what goes, what stays, and that no token is ever shown."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

from omnima import Model, _core
from omnima._places import find_model
from omnima.cli.app import main
from omnima.errors import ConfigError, DataError, OmnimaError
from omnima.hub import push, save_gguf

from .conftest import files_of
from .fake_hub import TOKEN, Hub


@pytest.fixture(autouse=True)
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def saved(small_model: Path, tmp_path: Path) -> Path:
    Model.from_pretrained(small_model).save_pretrained(tmp_path / "mine", license="mit")
    return tmp_path / "mine"


def test_what_goes_up_comes_down(hub: Hub, saved: Path) -> None:
    (saved / "data").mkdir()
    (saved / "data" / "tokens.bin").write_bytes(b"secret text")
    for private in ("run.json", "uncommitted.patch", ".lock", "optimizer.bin"):
        (saved / private).write_text("private")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = push(saved, "me/model")
    assert done.url == f"{hub.url}/me/model" and not done.private and done.missing == []
    assert done.left_out == [".lock", "data", "optimizer.bin", "run.json", "uncommitted.patch"]
    repository = hub.repositories["me/model"]
    commit, files = repository.at("main") or ("", {})
    assert commit == done.commit and len(repository.commits) == 2  # the first is the hub's own
    assert files.pop(".gitattributes")
    assert files == {name: (saved / name).read_bytes() for name in done.files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    theirs = Model.from_pretrained("me/model")
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(theirs(ids), Model.from_pretrained(saved)(ids))


def test_shards_and_certificates_go_and_stale_files_stay(hub: Hub, saved: Path) -> None:
    model = Model.from_pretrained(saved)
    assert model.tokenizer is not None
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    model.save_pretrained(saved, max_shard_size="10KB")
    (saved / "model-00009-of-00009.safetensors").write_bytes(b"stale")
    (saved / "certificate.json").write_text('{"passed": null}')
    done = push(saved, "me/shards")
    shards = [name for name in done.files if name.endswith(".safetensors")]
    assert len(shards) > 1 and "model.safetensors.index.json" in done.files
    assert "certificate.json" in done.files
    assert done.left_out == ["model-00009-of-00009.safetensors"]
    theirs = Model.from_pretrained("me/shards").tokenizer
    assert theirs is not None and theirs.chat_template == model.tokenizer.chat_template


def test_nothing_of_the_model_before_is_left(hub: Hub, saved: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(saved)
    assert model.tokenizer is not None
    model.tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    model.save_pretrained(saved, max_shard_size="10KB")
    (saved / "certificate.json").write_text('{"passed": null}')
    shards = [name for name in push(saved, "me/model").files if name.startswith("model")]
    hub.repositories["me/model"].commit({"notes.txt": b"mine"})
    with torch.no_grad():
        for _, each in model.named_parameters():
            each.mul_(2)
    model.tokenizer.chat_template = None
    model.save_pretrained(saved)
    templates = ["additional_chat_templates/tool_use.jinja", "chat_template.jinja"]
    assert push(saved, "me/model").removed == [
        *templates[:1],
        "certificate.json",
        *templates[1:],
        *shards,
    ]
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(Model.from_pretrained("me/model")(ids), model(ids))
    model.save_pretrained(saved, max_shard_size="10KB")
    assert push(saved, "me/model").removed == ["model.safetensors"]
    model.save_gguf(tmp_path / "tiny.gguf", dtype="f32")
    (tmp_path / "mine").rename(tmp_path / "other")
    assert push(tmp_path, "me/model").removed == []
    assert "notes.txt" in (hub.repositories["me/model"].at("main") or ("", {}))[1]


def test_links_out_of_the_directory_are_not_followed(hub: Hub, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    (saved / "LICENSE").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(ConfigError, match="LICENSE is a link to .*id_rsa, outside"):
        push(saved, "me/model")
    (saved / "LICENSE").unlink()
    (saved / "model.safetensors").rename(tmp_path / "big.safetensors")  # it loads: no secret
    (saved / "model.safetensors").symlink_to(tmp_path / "big.safetensors")
    push(saved, "me/model")
    cached = find_model("me/model")  # links to blobs
    assert (cached / "config.json").is_symlink()
    assert "config.json" in push(cached, "me/again").files


def test_a_second_push_is_a_second_commit(hub: Hub, saved: Path) -> None:
    first = push(saved, "me/model")
    (saved / "README.md").write_text((saved / "README.md").read_text() + "More.\n")
    second = push(saved, "me/model", message="Words")
    assert first.commit != second.commit
    assert list(hub.repositories["me/model"].commits)[1:] == [first.commit, second.commit]


def test_private_repositories(hub: Hub, saved: Path) -> None:
    assert push(saved, "me/secret", private=True).private
    assert hub.repositories["me/secret"].private
    assert push(saved, "me/secret").private  # it stays so
    push(saved, "me/open")
    commits = dict(hub.repositories["me/open"].commits)
    (saved / "README.md").write_text("---\nlicense: mit\n---\nsecret")
    with pytest.raises(ConfigError, match="there already and public, so nothing was uploaded"):
        push(saved, "me/open", private=True)
    assert hub.repositories["me/open"].commits == commits


def test_models_that_do_not_load_are_not_uploaded(hub: Hub, saved: Path, tmp_path: Path) -> None:
    config = (saved / "config.json").read_text()
    (saved / "config.json").write_text(config.replace("LlamaForCausalLM", "XForCausalLM"))
    with pytest.raises(DataError, match="'XForCausalLM'.*not supported"):
        push(saved, "me/model")
    (saved / "config.json").write_text(config)
    weights = _core.read_safetensors(saved / "model.safetensors")
    weights["model.norm.weight"][0] = torch.inf
    _core.write_safetensors(saved / "model.safetensors", weights, {})
    with pytest.raises(DataError, match="NaN or infinity"):
        push(saved, "me/model")
    (saved / "a.gguf").write_bytes(b"not of GGUF")
    with pytest.raises(DataError, match=r"a\.gguf is not a GGUF file"):
        push(saved, "me/model")
    with pytest.raises(ConfigError, match="holds no config.json and no GGUF file"):
        push(tmp_path, "me/model")
    with pytest.raises(ConfigError, match="There is no directory"):
        push(tmp_path / "absent", "me/model")
    assert hub.repositories == {} and hub.asked == []


def test_gguf_files_alone_can_be_uploaded(hub: Hub, saved: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(saved)
    (tmp_path / "g").mkdir()
    path = tmp_path / "g" / "tiny.F32.gguf"
    save_gguf(model.config.to_dict(), model.named_parameters(), path, dtype="f32")
    done = push(tmp_path / "g", "me/gguf")
    assert list(done.files) == ["tiny.F32.gguf"] and done.missing == ["card", "license"]
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(Model.from_pretrained("me/gguf/tiny.F32.gguf")(ids), model(ids))


def test_what_is_missing_is_named(hub: Hub, saved: Path) -> None:
    readme = saved / "README.md"
    readme.write_text(readme.read_text().replace("license: mit", "license: unknown"))
    assert push(saved, "me/model").missing == ["license"]
    readme.write_text("---\nlicense: [\n---\n")
    with pytest.raises(DataError, match=r"README\.md: the header .* is not valid YAML"):
        push(saved, "me/model")


@pytest.mark.parametrize(
    "name", ["model", "me/model@main", "me/model/a.gguf", "a/b/c", "", "./a/b"]
)
def test_what_is_no_repository(saved: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a repository: give owner/name"):
        push(saved, name)


def test_who_may_write(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the hub refuses .403.*may write it"):
        push(saved, "others/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError) as refused:
        push(saved, "me/model")
    assert "HF_TOKEN" in str(refused.value) and "hf_wrong" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="There is no token for the hub"):
        push(saved, "me/model")
    assert hub.repositories == {}


def test_a_hub_out_of_order_is_said_without_the_token(hub: Hub, saved: Path) -> None:
    hub.failing = 418
    with pytest.raises(OmnimaError, match=r"answers 418: out of order, \(token\)") as failed:
        push(saved, "me/model")
    assert TOKEN not in str(failed.value)


def test_without_a_connection(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name, value, said in (
        ("ENDPOINT", "http://127.0.0.1:9", "cannot be reached: "),
        ("HF_HUB_OFFLINE", True, "cannot be reached, as HF_HUB_OFFLINE says"),
    ):
        monkeypatch.setattr(constants, name, value)
        with pytest.raises(OmnimaError, match=f"{said}.*has not been uploaded"):
            push(saved, "me/model")


def test_without_the_extra(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OmnimaError, match=r'Uploading a model needs.*"omnima\[hub\]"'):
        push(saved, "me/model")


def test_models_push_themselves(hub: Hub, saved: Path) -> None:
    model = Model.from_pretrained(saved)
    done = model.push_to_hub("me/half", private=True, dtype="bfloat16", max_shard_size="10KB")
    assert done.private and done.missing == [] and len(done.files) > 6
    theirs = Model.from_pretrained("me/half")
    for (_, ours), (_, its) in zip(
        model.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.equal(ours.bfloat16().float(), its)


def test_the_command(hub: Hub, small_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["push", str(small_model), "me/cli", "--private", "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert left.value.code == 0
    assert found["private"] and found["repository"] == "me/cli" and found["missing"] == ["license"]
    assert set(found["files"]) == set(files_of(small_model))
    assert "note: its card names no license" in err
    assert TOKEN not in out + err
    with pytest.raises(SystemExit) as left:
        main(["push", str(small_model), "me/other"])
    out, _ = capsys.readouterr()
    assert left.value.code == 0 and "config.json" in out and TOKEN not in out
