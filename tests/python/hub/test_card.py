"""Model cards: the header that hubs read, licenses kept, a user's words kept, certificates."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from omnima import Model, hub
from omnima.errors import ConfigError, DataError
from omnima.hub import card as cards
from omnima.hub.card import BEGIN, END, license_of, read_header, read_origin

from .conftest import files_of
from .fake_hub import Hub

PASSED = {
    "against": "transformers",
    "version": "5.1",
    "dtype": "f32",
    "difference": 2e-7,
    "largest_difference": 1.2e-6,
    "tolerance": 1e-4,
    "same_choice": 0.999,
    "greedy_equal": 8,
    "prompts": 8,
    "perplexity": 12.3456,
    "perplexity_there": 12.3457,
    "passed": True,
    "reasons": [],
}


@pytest.fixture
def model(small_model: Path) -> Model:
    return Model.from_pretrained(small_model)


def header(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    return found


def text(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_the_header_is_read_by_huggingface_hub(model: Model, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    model.save_pretrained(tmp_path, license="apache-2.0")
    found = ModelCard.load(tmp_path / "README.md").data
    assert (found.library_name, found.pipeline_tag) == ("transformers", "text-generation")
    assert (found.license, found.tags) == ("apache-2.0", ["omnima", "llama"])
    assert found.base_model is None
    assert f"| parameters | {model.num_parameters:,} |" in text(tmp_path)
    assert "| vocabulary | 259 (byte) |" in text(tmp_path)


def test_the_way_to_load_it_works(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text(tmp_path), re.S):
        exec(block.replace("PATH", str(tmp_path)), names)  # noqa: S102 - our own words
        if isinstance(names["model"], Model):
            ours = names["model"](torch.tensor([[3, 4]]))
    torch.testing.assert_close(ours, names["model"](torch.tensor([[3, 4]])).logits)
    assert names["tokenizer"]("be")["input_ids"] == model.tokenizer.encode("be")  # type: ignore[union-attr]


def test_a_model_that_transformers_does_not_have_says_so(tmp_path: Path) -> None:
    bare = Model.from_preset("nima", vocab_size=64, num_hidden_layers=1, positions="none")
    with pytest.warns(UserWarning, match="loads in Omnima only"):
        bare.save_pretrained(tmp_path)
    assert header(tmp_path)["library_name"] == "omnima"
    assert header(tmp_path)["tags"] == ["omnima"] and "loads in Omnima only" in text(tmp_path)
    assert "AutoTokenizer" not in text(tmp_path)


def test_what_a_user_wrote_stays(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "README.md"
    own = text(tmp_path).replace(
        "---\n\n<!--", "datasets:\n- me/mine # a comment\n---\n\n# My model\n\nHello.\n\n<!--"
    )
    own = own.replace("pipeline_tag: text-generation", "pipeline_tag: text2text-generation")
    path.write_text(own.replace("| parameters |", "| numbers |") + "\nThe end. ✔\n")
    model.save_pretrained(tmp_path)
    assert "| parameters |" in text(tmp_path) and "| numbers |" not in text(tmp_path)
    assert "\n---\n\n# My model\n\nHello.\n\n<!-- omnima" in text(tmp_path)
    assert text(tmp_path).endswith(f"{END}\n\nThe end. ✔\n")
    assert "me/mine # a comment" in text(tmp_path)  # an unchanged header keeps its letters
    assert header(tmp_path)["pipeline_tag"] == "text2text-generation"
    model.save_pretrained(tmp_path, license="mit")
    assert header(tmp_path)["datasets"] == ["me/mine"] and header(tmp_path)["license"] == "mit"
    assert "The end. ✔" in text(tmp_path) and "License: mit." in text(tmp_path)
    model.save_pretrained(tmp_path)
    assert header(tmp_path)["license"] == "mit"
    before = text(tmp_path)
    model.save_pretrained(tmp_path)
    assert text(tmp_path) == before


@pytest.mark.parametrize(
    "foreign", ["Mine.", "---\nlicense: mit\n---\n", f"---\na: [\n---\n{BEGIN}{END}"]
)
def test_a_card_of_others_stays(model: Model, tmp_path: Path, foreign: str) -> None:
    (tmp_path / "README.md").write_text(foreign)
    model.save_pretrained(tmp_path)
    assert text(tmp_path) == foreign
    if BEGIN not in foreign:
        assert not hub.update_certificates(tmp_path)


def test_the_license_of_an_imported_model_is_kept(
    hub: Hub, small_model: Path, tmp_path: Path
) -> None:
    theirs = "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n# Them\n"
    hub.add("some/model", {**files_of(small_model), "README.md": theirs.encode()})
    loaded = Model.from_pretrained("some/model")
    loaded.save_pretrained(tmp_path / "a")
    found = header(tmp_path / "a")
    assert {key: found[key] for key in ("license", "license_name", "license_link")} == {
        "license": "other",
        "license_name": "llama3",
        "license_link": "LICENSE",
    }
    assert found["base_model"] == "some/model"
    assert "Made with Omnima from some/model. License: llama3 (other)." in text(tmp_path / "a")
    Model.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert header(tmp_path / "b") == found  # of a copy's copy, too
    loaded.save_pretrained(tmp_path / "c", license="mit")
    assert header(tmp_path / "c")["license"] == "mit"
    assert "license_name" not in header(tmp_path / "c")


def test_licenses(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="license is 'Apache 2'.*such as apache-2.0"):
        model.save_pretrained(tmp_path / "m", license="Apache 2")
    assert not (tmp_path / "m").exists()
    assert license_of({}) is None and license_of({"license": "unknown"}) is None
    assert license_of({"license": ["mit", "bsd"]}) == "mit, bsd"
    assert license_of({"license": 3}) is None


def test_what_a_card_says_of_its_origin(tmp_path: Path) -> None:
    assert read_origin(tmp_path).license is None
    path = tmp_path / "README.md"
    for said, license in (
        ("license: [a, b]", ["a", "b"]),
        ("license: {a: b}", None),
        ("license: 3", None),
        ("base_model: [x/y]", None),
    ):
        path.write_text(f"---\n{said}\n---\n")
        assert read_origin(tmp_path).license == license
        assert read_origin(tmp_path).base_model is None
    path.write_text("---\nbase_model: x/y\n---\n")
    assert read_origin(tmp_path).base_model == "x/y"
    path.write_text("---\nlicense: [\n---\n")
    with pytest.warns(UserWarning, match="not valid YAML.*the license is not known"):
        assert read_origin(tmp_path, "a/b").base_model == "a/b"
    assert read_header("---\n- a\n---\n") is None and read_header("---\n---\n") == {}
    for value in (
        "!!bool x",
        "!!int ''",
        "!!timestamp x",
        "[" * 5000,
        f"'{'x' * cards._LONGEST_HEADER}'",
    ):
        assert read_header(f"---\na: {value}\n---\n") is None
    assert license_of({"license": ["mit", {"a": "b"}]}) == "mit"


def test_a_file_that_is_no_card_stays_and_says_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path, license="mit")
    before = text(tmp_path)
    monkeypatch.setattr(cards, "_LARGEST", 10)
    with pytest.warns(UserWarning, match="is no model card"):
        assert Model.from_pretrained(tmp_path).origin == hub.Origin()
    model.save_pretrained(tmp_path, license="bsd")
    assert text(tmp_path) == before and not hub.update_certificates(tmp_path)


def test_the_license_goes_through_gguf_files(model: Model, tmp_path: Path) -> None:
    model.origin = hub.Origin("some/model", "apache-2.0")
    model.tokenizer = None
    model.save_gguf(tmp_path / "a.gguf")
    model.save_gguf(tmp_path / "b.gguf", about={"license": "mit"})
    model.origin = hub.Origin()
    model.save_gguf(tmp_path / "c.gguf")
    found = [
        Model.from_pretrained(tmp_path / name).origin for name in ("a.gguf", "b.gguf", "c.gguf")
    ]
    assert [each.license for each in found if each] == ["apache-2.0", "mit", None]


def test_certificates_are_a_line_each(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    before = text(tmp_path)
    assert "## Verified" not in before
    (tmp_path / "certificate.json").write_text(json.dumps(PASSED))
    failed = {**PASSED, "against": "llama.cpp", "passed": False, "reasons": ["the logits differ"]}
    (tmp_path / "a.gguf.certificate.json").write_text(json.dumps(failed))
    nothing = dict.fromkeys(PASSED) | {"passed": None}
    (tmp_path / "b.gguf.certificate.json").write_text(json.dumps(nothing))
    assert hub.update_certificates(tmp_path)
    lines = text(tmp_path).split("## Verified\n\n")[1].split(END)[0].strip().splitlines()
    assert lines == [
        "- transformers 5.1 reads the same model (f32); logits apart by 2.0e-07 of their spread, "
        "root mean square (allowed: 1.0e-04); the largest difference 1.2e-06 of it; the same "
        "likeliest token in 99.90% of places; the same greedy text for 8 of 8 prompts; perplexity "
        "12.35 there, 12.35 here.",
        "- a.gguf: llama.cpp 5.1 finds another model: the logits differ.",
        "- b.gguf: not compared with another tool: none was installed.",
    ]
    once = text(tmp_path)
    assert hub.update_certificates(tmp_path) and text(tmp_path) == once
    for path in tmp_path.glob("*.gguf.certificate.json"):
        path.unlink()
    assert hub.update_certificates(tmp_path) and text(tmp_path).count("\n- ") < once.count("\n- ")
    hub.write_card(tmp_path, hub.card_of(model.config.to_dict(), 1, None))
    assert "## Verified" in text(tmp_path)
    (tmp_path / "certificate.json").unlink()
    assert hub.update_certificates(tmp_path)
    assert "## Verified" not in text(tmp_path)
    model.save_pretrained(tmp_path)
    assert text(tmp_path) == before


def test_a_certificate_may_say_less_or_be_damaged(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({"against": "transformers", "passed": True}))
    assert hub.update_certificates(tmp_path)
    assert "- transformers reads the same model (numbers of unknown kind)." in text(tmp_path)
    path.write_text(json.dumps({"against": "transformers", "passed": False}))
    hub.update_certificates(tmp_path)
    assert "no reason is given" in text(tmp_path)
    for damaged in ("{", json.dumps({**PASSED, "prompts": "eight"})):
        path.write_text(damaged)
        with pytest.raises(DataError, match="certificate.json"):
            hub.update_certificates(tmp_path)


def test_no_card_no_certificate(tmp_path: Path, small_model: Path) -> None:
    shutil.copytree(small_model, tmp_path / "m")
    (tmp_path / "m" / "README.md").unlink()
    assert not hub.update_certificates(tmp_path / "m")
