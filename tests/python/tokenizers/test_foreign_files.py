"""Files of other libraries: SentencePiece's models, rank files and JSON, told apart by content."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima.errors import ConfigError, DataError, OmnimaError

PLAIN = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    "character_coverage": 1.0,
}


def model_of(documents: list[str], **options: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    asked = {"model_type": "unigram", "vocab_size": 400, **PLAIN, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(documents).split("\n")),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **asked,
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def both(
    request: pytest.FixtureRequest, documents: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any, Path]:
    import sentencepiece

    options = {"control_symbols": "<|user|>", "pad_id": 3, "vocab_size": 420}
    content = model_of(documents, model_type=request.param, **options)
    path = tmp_path_factory.mktemp("model") / "mödel.model"
    path.write_bytes(content)
    return (
        Tokenizer.from_file(path),
        sentencepiece.SentencePieceProcessor(model_proto=content),
        path,
    )


@settings(max_examples=60, deadline=None)
@given(text=st.text().filter(lambda text: "\u2581" not in text))
def test_a_sentencepiece_model_gives_its_ids(both: tuple[Tokenizer, Any, Path], text: str) -> None:
    ours, theirs, _ = both
    text = text.replace("\0", "")  # SentencePiece ends a text there
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == text


def test_a_sentencepiece_model_keeps_its_tokens(
    both: tuple[Tokenizer, Any, Path], story: str, in_transformers: Any, tmp_path: Path
) -> None:
    ours, theirs, path = both
    story = story.replace("\u2581", "")  # theirs takes it for a space
    assert ours.encode(story) == theirs.encode(story)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 3)
    assert ours.kind == ("unigram" if ours.description.scores else "bpe")
    assert ours.vocab_size == theirs.get_piece_size()
    assert ours.special_tokens["<|user|>"] == theirs.piece_to_id("<|user|>")
    ours.save_pretrained(tmp_path)
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").fingerprint == ours.fingerprint
    assert Tokenizer.from_file(tmp_path).encode(story) == ours.encode(story)
    plain = story.split("#")[0]  # the rest spells a special token
    assert list(in_transformers(ours)(plain)["input_ids"]) == ours.encode(plain)
    other = Tokenizer.from_file(path, bos_token="<|user|>", eos_token="<s>")
    assert (other.bos_id, other.eos_id) == (ours.special_tokens["<|user|>"], 1)
    with pytest.raises(ConfigError, match=r"'<end>' is none of the special tokens of .*<unk>, <s>"):
        Tokenizer.from_file(path, eos_token="<end>")


def test_a_model_without_padding_is_read_by_transformers(
    documents: list[str], in_transformers: Any, tmp_path: Path
) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(model_of(documents))
    made = Tokenizer.from_file(path)
    assert made.pad_id is None
    text = "the naïve 狐 fox"
    assert list(in_transformers(made)(text)["input_ids"]) == made.encode(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"add_dummy_prefix": True}, "add_dummy_prefix"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces of"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalization of characters"),
        ({"byte_fallback": False, "vocab_size": 150}, "a vocabulary without byte_fallback"),
        ({"model_type": "char"}, "a model of type word or char"),
        ({"user_defined_symbols": "<cell>"}, "the user-defined piece '<cell>'"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ],
)
def test_what_would_give_other_ids_is_refused(
    options: dict[str, Any], message: str, documents: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(model_of(documents, **options))
    with pytest.raises(DataError, match=rf"m\.model: .*{message}.*name=identity"):
        Tokenizer.from_file(path)


def test_damaged_files_are_refused(both: tuple[Tokenizer, Any, Path], tmp_path: Path) -> None:
    content = both[2].read_bytes()
    path = tmp_path / "damaged.model"
    rng = random.Random(5)
    refused = 0
    for number in range(300):
        broken = bytearray(content)
        if number % 2:
            del broken[rng.randrange(len(broken)) :]
        else:
            broken[rng.randrange(min(len(broken), 4000))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            Tokenizer.from_file(path)
        except OmnimaError as error:
            refused += str(path) in str(error)
    assert refused > 140  # a changed score or letter is another tokenizer, not a damaged one
    for content in (b"", b"hello world", b"\xff" * 40, b"\x08" + b"\x80" * 20):
        path.write_bytes(content)
        with pytest.raises(DataError, match="neither a tokenizer.json, nor a rank file"):
            Tokenizer.from_file(path)
    with pytest.raises(DataError, match="nowhere: the tokenizer cannot be read: No such file"):
        Tokenizer.from_file(tmp_path / "nowhere")


def test_rank_files_and_json_are_told_apart(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    ranks = [bytes([value]) for value in range(256)] + [b" t", b"he", b" the"]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(ranks)]
    path = tmp_path / "gpt2.tiktoken"
    path.write_text("\n".join(lines) + "\n")
    made = Tokenizer.from_file(path)
    same = Tokenizer.from_rank_file(path, "gpt2")
    assert made.fingerprint == same.fingerprint and made.encode(" the") == [258]
    other = path.rename(tmp_path / "tokenizer.model")
    with pytest.raises(ConfigError, match="does not say how text is cut first: give pattern, one"):
        Tokenizer.from_file(other)
    named = Tokenizer.from_file(
        other, pattern="llama3", special_tokens=["<a>", "<b>"], bos_token="<a>", eos_token="<b>"
    )
    assert (named.bos_id, named.eos_id) == (259, 260)
    trained["bpe"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    bare = Tokenizer.from_file(tmp_path / "tokenizer.json", eos_token="</s>")
    assert (bare.bos_id, bare.eos_id) == (None, 2)
    with pytest.raises(ConfigError, match="pattern goes with a rank file only"):
        Tokenizer.from_file(tmp_path, pattern="gpt2")
    with pytest.raises(ConfigError, match="special_tokens goes with a rank file only"):
        Tokenizer.from_file(tmp_path, special_tokens=["<x>"])
