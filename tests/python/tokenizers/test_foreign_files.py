"""Files of other libraries: SentencePiece's models, rank files and JSON, told apart by content."""

from __future__ import annotations

import base64
import io
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima import Tokenizer
from omnima.errors import ConfigError, DataError, OmnimaError
from omnima.tokenizers import files

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
        (
            {"normalization_rule_name": "nmt_nfkc", "user_defined_symbols": "\u2460"},
            "the user-defined piece '\u2460' beside normalization",
        ),
        ({"model_type": "char"}, "a model of type word or char"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ],
)
def test_what_would_give_other_ids_is_refused(
    options: dict[str, Any], message: str, documents: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(model_of(documents, **options))
    with pytest.raises(DataError, match=rf"m\.model: .*{message} of SentencePiece is not"):
        Tokenizer.from_file(path)


def test_damaged_files_are_refused(both: tuple[Tokenizer, Any, Path], tmp_path: Path) -> None:
    content = both[2].read_bytes()
    path = tmp_path / "damaged.model"
    rng = random.Random(5)
    specs = len(content) - 400  # of the trainer and the normalizer, behind the pieces
    refused = dict.fromkeys(("cut", "piece", "spec"), 0)
    for way in refused:
        for _ in range(150):
            broken = bytearray(content)
            if way == "cut":
                del broken[rng.randrange(len(broken)) :]
            else:
                at = rng.randrange(specs) if way == "piece" else rng.randrange(specs, len(content))
                broken[at] ^= 1 << rng.randrange(8)
            path.write_bytes(broken)
            try:
                Tokenizer.from_file(path)
            except OmnimaError as error:
                refused[way] += str(path) in str(error)
    # A changed score or letter, or a setting of training, is another tokenizer, not a damaged one.
    assert refused["cut"] > 140 and refused["piece"] > 20 and refused["spec"] > 20, refused
    for content in (b"", b"hello world", b"\xff" * 40, b"\x08" + b"\x80" * 20):
        path.write_bytes(content)
        with pytest.raises(DataError, match="neither a tokenizer.json, nor a rank file"):
            Tokenizer.from_file(path)
    with pytest.raises(DataError, match="nowhere: the tokenizer cannot be read: No such file"):
        Tokenizer.from_file(tmp_path / "nowhere")


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | float | bytes | str) -> bytes:
    """Write one field of a message, as the wire type that goes with the value."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text: str | int, score: float | bytes = 0.0, kind: int | bytes = 1) -> bytes:
    return field(1, field(1, text) + field(2, score) + field(3, kind))


def small_model(more: bytes = b"", trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    named = [piece(text, kind=kind) for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3))]
    held = [piece(f"<0x{value:02X}>", kind=6) for value in range(256)] + [piece("\u2581a", -1.0)]
    plain = field(3, 0) + field(4, 0)
    specs = field(2, field(3, 1) + field(35, 1) + trainer) + field(3, plain + normalizer)
    return b"".join(named + held) + more + specs


@pytest.mark.parametrize(
    ("model", "message"),
    [
        *((small_model(trainer=field(n, b"x")), "or it is damaged") for n in (3, 24, 35, 41, 42)),
        *((small_model(normalizer=field(n, b"\x01")), "or it is damaged") for n in (3, 4, 5)),
        (small_model(piece("b", 0.0, b"1")), "or it is damaged"),
        (small_model(piece(7)), "or it is damaged"),
        (small_model(piece("b", b"1234")), None),  # four bytes are a score, however they are said
        (small_model(field(1, 5)), "or it is damaged"),
        (small_model(piece("b", float("nan"))), "the score of the piece 'b' is nan, not a finite"),
        (small_model(piece("b", float("-inf"))), "the score of the piece 'b' is -inf"),
        (small_model(piece(" a")), "a piece that is there twice"),
        (small_model(), None),
    ],
)
def test_every_damaged_field_gives_one_message(
    model: bytes, message: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "small.model"
    path.write_bytes(model)
    if message is None:
        assert Tokenizer.from_file(path).decode([259]) == " a"
        return
    with pytest.raises(DataError, match=rf"small\.model: .*{message}"):
        Tokenizer.from_file(path)


def test_only_control_pieces_begin_and_end(tmp_path: Path) -> None:
    path = tmp_path / "small.model"
    path.write_bytes(small_model(trainer=field(41, 1) + field(42, 259) + field(43, 0)))
    made = Tokenizer.from_file(path)
    assert (made.bos_id, made.eos_id, made.pad_id) == (1, None, None)


def test_scores_that_are_no_numbers_are_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "small.model"
    path.write_bytes(small_model())
    made = Tokenizer.from_file(path)
    made.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer.json"
    text = file.read_text("utf-8")
    for score in ("NaN", "1e999"):
        file.write_text(text.replace('[" a",-1.0]', f'[" a",{score}]'))
        with pytest.raises(DataError, match=r"damaged: ValueError: the score of ' a' is (nan|inf)"):
            Tokenizer.from_file(file)
    unread = replace(made.description, scores=[float("nan")] * made.vocab_size)
    with pytest.raises(ValueError, match="JSON compliant"):
        files.serialize(unread)


def test_rank_files_and_json_are_told_apart(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    ranks = [bytes([value]) for value in range(256)] + [b" t", b"he", b" the"]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(ranks)]
    path = tmp_path / "gpt2.tiktoken"
    path.write_text("\n".join(lines) + "\n")
    made = Tokenizer.from_file(path)
    same = Tokenizer.from_rank_file(path, "gpt2")
    assert made.fingerprint == same.fingerprint and made.encode(" the") == [258]
    other = path.rename(tmp_path / "tokenizer.model")
    with pytest.raises(
        ConfigError, match=r"does not say how text is cut first: give pattern \(--pattern\), one"
    ):
        Tokenizer.from_file(other)
    named = Tokenizer.from_file(
        other, pattern="llama3", special_tokens=["<a>", "<b>"], bos_token="<a>", eos_token="<b>"
    )
    assert (named.bos_id, named.eos_id) == (259, 260)
    trained["bpe"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    bare = Tokenizer.from_file(tmp_path / "tokenizer.json", eos_token="</s>")
    assert (bare.bos_id, bare.eos_id) == (None, 2)
    with pytest.raises(ConfigError, match=r"^pattern \(--pattern\) goes .* is not one: omit it"):
        Tokenizer.from_file(tmp_path, pattern="gpt2")
    with pytest.raises(ConfigError, match=r"^special_tokens \(--special\) goes with a rank"):
        Tokenizer.from_file(tmp_path, special_tokens=["<x>"])
