"""Chat templates travel through GGUF files, by the keys that the gguf package has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnima.errors import ConfigError, DataError
from omnima.hub.gguf.chat import read_templates, write_templates


@pytest.mark.parametrize(
    "template", ["{{ bos_token }}ü\n", {"default": "D", "tool_use": "T"}, {"rag": "R"}]
)
def test_the_keys_are_those_of_the_gguf_package(template: Any, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    named = template if isinstance(template, str) else [
        {"name": name, "template": text} for name, text in template.items()
    ]  # fmt: skip
    writer.add_chat_template(named)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = gguf.GGUFReader(tmp_path / "theirs.gguf").fields
    theirs = {k: v.contents() for k, v in found.items() if k.startswith("tokenizer.")}
    pairs = write_templates(template)
    assert {key: value for key, _, value in pairs} == theirs

    again = read_templates(theirs, "theirs.gguf")
    texts = {"default": template} if isinstance(template, str) else template
    assert {name: each.text for name, each in again.items()} == texts


def test_names_that_become_one_are_refused() -> None:
    assert write_templates(None) == []
    assert write_templates({"rag.2": "R"})[0] == ("tokenizer.chat_template.rag_2", "str", "R")
    with pytest.raises(ConfigError, match="two chat templates would be named 'rag_2'"):
        write_templates({"rag.2": "a", "rag-2": "b"})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.chat_template": 3}, "x.gguf, tokenizer.chat_template: .*text, not int"),
        ({"tokenizer.chat_template./a": "b"}, "'/a' cannot name a chat template"),
        ({"tokenizer.chat_template": "a" * (10 << 20)}, "longer than"),
    ],
)
def test_keys_that_are_no_templates_are_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_templates(metadata, "x.gguf")
