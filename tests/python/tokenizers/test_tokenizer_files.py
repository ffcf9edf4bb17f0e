"""Saving and loading, and files that are damaged or another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import DataError
from omnima.tokenizers import Tokenizer


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path, story: str) -> None:
    directory = tmp_path / "a näme" / "with spaces"
    tokenizer.save_pretrained(directory)
    loaded = Tokenizer.from_pretrained(str(directory))
    assert loaded.kind == tokenizer.kind
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode(story) == tokenizer.encode(story)
    assert sorted(path.name for path in directory.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def edited(tokenizer: Tokenizer, directory: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return directory


def swap_ids(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["<pad>"] = 1


BPE_EDITS = [
    (lambda c: c.update(normalizer={"type": "NFC"}), "the normalizer 'NFC' is not supported"),
    (
        lambda c: c.update(pre_tokenizer={"type": "Metaspace"}),
        "the replacement None of 'Metaspace'",
    ),
    (
        lambda c: c.update(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
            }
        ),
        "the post_processor 'TemplateProcessing'",
    ),
    (lambda c: c.update(post_processor="odd"), "the post_processor 'odd'"),
    (lambda c: c.pop("model"), "'model' is missing"),
    (lambda c: c["model"].update(type="WordPiece"), "a model of type 'WordPiece'"),
    (lambda c: c["model"].update(type=["BPE"]), r"a model of type '\['BPE'\]'"),
    (lambda c: c["model"].update(dropout=0.1), "the BPE option dropout=0.1"),
    (lambda c: c["model"].update(byte_fallback=False), "without byte_fallback"),
    (lambda c: c["model"]["merges"].append(["zz", "zz"]), "damaged: KeyError"),
    (lambda c: c["model"].pop("merges"), "damaged: KeyError: 'merges'"),
    (swap_ids, "ids of the vocabulary are not 0 to"),
    (lambda c: c["added_tokens"][0].update(lstrip=True), "the added token '<pad>'"),
    (lambda c: c["added_tokens"][0].update(id=7), "which is another's"),
    (
        lambda c: c["added_tokens"].append({"id": 5, "content": "<0x00>", "special": True}),
        "with 255 of the 256 byte tokens",
    ),
]


@pytest.mark.parametrize(("edit", "message"), BPE_EDITS)
def test_another_shape_of_file_is_an_error_that_names_it(
    trained: dict[str, Tokenizer],
    tmp_path: Path,
    edit: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    directory = edited(trained["bpe"], tmp_path, edit)
    with pytest.raises(DataError, match=message) as raised:
        Tokenizer.from_pretrained(directory)
    assert str(directory / "tokenizer.json") in str(raised.value)


def test_a_unigram_without_bytes_is_refused(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    directory = edited(trained["unigram"], tmp_path, lambda c: c["model"].pop("byte_fallback"))
    with pytest.raises(DataError, match="unigram model without byte_fallback"):
        Tokenizer.from_pretrained(directory)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokens_added_behind_the_vocabulary_are_read(
    kind: str,
    trained: dict[str, Tokenizer],
    in_transformers: Callable[[Tokenizer], Any],
    tmp_path: Path,
) -> None:
    import transformers

    in_transformers(trained[kind]).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.special_tokens["<|tool|>"] == trained[kind].vocab_size
    text = "the <|tool|> and Ω"
    assert ours.encode(text, parse_special=True) == list(theirs(text)["input_ids"])


def test_old_style_merges_are_read(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    def join(content: dict[str, Any]) -> None:
        merges = content["model"]["merges"]
        content["model"]["merges"] = [" ".join(m) if " " not in "".join(m) else m for m in merges]

    loaded = Tokenizer.from_pretrained(edited(trained["bpe"], tmp_path, join))
    assert loaded.fingerprint == trained["bpe"].fingerprint


def test_missing_and_broken_files_are_named(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: there is no such file"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        Tokenizer.from_pretrained(tmp_path)
    for broken in (b"\xff{", b"[" * 100_000):
        (tmp_path / "tokenizer.json").write_bytes(broken)
        with pytest.raises(DataError, match=r"tokenizer\.json: not valid JSON"):
            Tokenizer.from_pretrained(tmp_path)
    trained["byte"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<begin>"}}')
    with pytest.raises(DataError, match=r"tokenizer_config\.json: bos_token is '<begin>'"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_tokenizer_without_config_has_no_begin_or_end(
    trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    trained["byte"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.bos_id is None and loaded.encode("a") == trained["byte"].encode("a")
    with pytest.raises(DataError, match="no begin token"):
        loaded.encode("a", add_bos=True)
    with pytest.raises(DataError, match="no end token"):
        loaded.encode_batch(["a"], add_eos=True)


def test_what_the_core_refuses_names_the_place(
    trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    trained["char"].save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    number = vocabulary.pop(last)
    vocabulary[""] = number
    path.write_text(json.dumps(content), "utf-8")
    for read in (Tokenizer.from_pretrained, Tokenizer.from_file):
        with pytest.raises(DataError, match=rf"{tmp_path}.*: piece {number} .* is empty"):
            read(tmp_path)
