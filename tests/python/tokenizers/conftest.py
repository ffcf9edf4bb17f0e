"""Trained tokenizers of every kind, shared by the tests of this folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.tokenizers import Tokenizer

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"

STORY = (
    "Once upon a time there was a fox who had 12 red apples and 3 wishes.\n"
    'The fox said: "don\'t go  into the   wood!" and the wood said nothing, naïve as it was.\n'
    "def wish(fox):\n    return fox + 1  # ▁ literal, <s> too, and <0x41>\n\tif fox: pass\n\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 我爱北京天安门。 🦊🍎\n"
)
SPECIALS = ("<|user|>", "<|assistant|>")


def corpus() -> list[str]:
    words = [
        f"The {a} {b}s the {c}."
        for a in ("fox", "bear", "hen")
        for b in ("see", "like", "fear")
        for c in ("river", "moon", "garden", "old tree")
    ]
    return [STORY, *words, STORY.upper()] * 3


@pytest.fixture(scope="session")
def story() -> str:
    return STORY


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return corpus()


@pytest.fixture(scope="session")
def read_text() -> Callable[[str, int], str]:
    """Return a reader of the first characters of a shared file, which skips the test without it."""
    return _read_text


@pytest.fixture(scope="session")
def trained() -> dict[str, Tokenizer]:
    return {
        kind: Tokenizer.train(corpus(), kind, 640 if kind == "bpe" else None, SPECIALS)
        for kind in ("bpe", "unigram", "char", "byte")
    }


@pytest.fixture(scope="session", params=["bpe", "unigram", "char", "byte"])
def tokenizer(request: pytest.FixtureRequest, trained: dict[str, Tokenizer]) -> Tokenizer:
    return trained[request.param]


@pytest.fixture(scope="session", params=["bpe", "unigram", "byte"])
def complete(request: pytest.FixtureRequest, trained: dict[str, Tokenizer]) -> Tokenizer:
    return trained[request.param]


@pytest.fixture(scope="session")
def in_transformers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Tokenizer], Any]:
    """Save a tokenizer beside a Llama config, as a model directory has it, and load it back."""
    transformers = pytest.importorskip("transformers")
    loaded: dict[str, Any] = {}

    def load(tokenizer: Tokenizer) -> Any:
        if tokenizer.fingerprint not in loaded:
            directory = tmp_path_factory.mktemp("tokenizer é")
            tokenizer.save_pretrained(directory)
            config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
            (directory / "config.json").write_text(json.dumps(config))
            loaded[tokenizer.fingerprint] = transformers.AutoTokenizer.from_pretrained(directory)
        return loaded[tokenizer.fingerprint]

    return load


def _read_text(name: str, characters: int) -> str:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} of the shared data is not here")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return str(file.read(characters))
