"""`omnima export`, `import` and `verify` at the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import omnima
from omnima.exporting import peers, transfer

pytest.importorskip("transformers")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    omnima.Model.from_preset("nima", vocab_size=300).save_pretrained(tmp_path / "given")
    return tmp_path / "given"


@pytest.fixture(autouse=True)
def here(monkeypatch) -> None:
    monkeypatch.setattr(transfer, "ask", lambda kind, path, asked: peers.PEERS[kind](path, asked))


def test_what_is_exported_can_be_verified_and_imported(given, tmp_path, leave):
    out = tmp_path / "out"
    export = ["export", given, "--to", "hf", "--dtype", "bf16", "--out", out]
    code, text, _ = leave([*export, "--json"])
    assert code == 0 and json.loads(text) == json.loads((out / "certificate.json").read_text())
    assert json.loads(text)["passed"] is True and json.loads(text)["dtype"] == "bf16"

    code, text, _ = leave(["verify", out, "--against", "transformers"])
    assert code == 0 and "passed" in text

    code, text, _ = leave(["import", out, "--out", tmp_path / "in", "--json"])
    assert code == 0 and "parameters" in json.loads(text)
    assert (tmp_path / "in" / "model.safetensors").is_file()

    code, _, err = leave(export)
    assert code == 1 and "is there already" in err


def test_verify_leaves_with_1_where_the_models_differ(given, leave, monkeypatch):
    def other(kind, path, asked):
        found = peers.transformers(path, asked)
        return dataclasses.replace(found, logits=[-each for each in found.logits])

    monkeypatch.setattr(transfer, "ask", other)
    code, text, _ = leave(["verify", given, "--against", "transformers", "--json"])
    assert code == 1 and json.loads(text)["passed"] is False and json.loads(text)["reasons"]
