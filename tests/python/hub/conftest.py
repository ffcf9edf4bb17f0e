"""A hub of our own for the tests, and small models to put there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnima import Model, Tokenizer

from . import fake_hub


def files_of(folder: Path) -> dict[str, bytes]:
    """A directory's files by name."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub that huggingface_hub talks to in this process and those it starts, without a token."""
    from huggingface_hub import constants, file_download

    with fake_hub.running() as server:
        home = tmp_path / "hub-home"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HOME": str(home),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
            if hasattr(file_download, name):  # older versions hold copies
                monkeypatch.setattr(file_download, name, value)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        root = str(Path(__file__).resolve().parents[3] / "python")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
        yield server


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with its tokenizer."""
    folder = tmp_path_factory.mktemp("small") / "model"
    tokenizer = Tokenizer.train(["to be or not to be"], "byte")
    model = Model.from_preset(
        "nima",
        vocab_size=tokenizer.vocab_size,
        num_hidden_layers=1,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    model.tokenizer = tokenizer
    model.save_pretrained(folder)
    return folder
