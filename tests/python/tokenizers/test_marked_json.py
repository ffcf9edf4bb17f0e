"""tokenizer.json with spaces as U+2581: the ids and texts are those of the tokenizers library."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from transformers.tokenization_utils_base import generate_merges

from omnima.errors import DataError
from omnima.tokenizers import Tokenizer

from .marked_text import ODD, WORDS, first_difference, lines, pieces_of, train

LINES = lines(2000)


@pytest.fixture(scope="session")
def bpe_pieces() -> list[tuple[str, float]]:
    return pieces_of(train("bpe"))


@pytest.fixture(scope="session")
def unigram_pieces() -> list[tuple[str, float]]:
    return pieces_of(train("unigram", character_coverage=1.0))


def bpe(pieces: list[tuple[str, float]], **options: Any) -> tokenizers.Tokenizer:
    vocabulary = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = generate_merges(vocabulary, dict(pieces))
    settings = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} | options
    return tokenizers.Tokenizer(BPE(vocabulary, merges, **settings))


def fused(*more: Any) -> Any:
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*back, *more])


def llama_legacy(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
    made = bpe(pieces)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = fused(decoders.Strip(" ", 1, 0))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return made


def metaspace(scheme: str) -> Any:
    def make(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
        made = bpe(pieces, unk_token=None)
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
        made.decoder = fused(*([decoders.Strip(" ", 1, 0)] if scheme != "never" else []))
        return made

    return make


def metaspace_split(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
    made = bpe([each for each in pieces if not each[0].startswith("<0x")], byte_fallback=False)
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=True)
    made.decoder = decoders.Metaspace("▁", "always", split=True)
    return made


def gemma(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
    # The byte token of the tab is the tab itself, as in Gemma's first files.
    made = bpe([("\t", 0.0) if piece == "<0x09>" else (piece, score) for piece, score in pieces])
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = fused()
    runs = ["\n\n", "\n", "▁▁▁", "<tag>"]
    made.add_tokens([AddedToken(each, normalized=False, special=False) for each in runs])
    return made


def unfused(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
    made = llama_legacy([each for each in pieces if not each[0].startswith("<0x")])
    settings = json.loads(made.to_str())
    settings["model"] |= {"fuse_unk": False, "byte_fallback": False}
    return tokenizers.Tokenizer.from_str(json.dumps(settings))


BPE_FORMS = {
    "llama legacy": llama_legacy,
    "metaspace first": metaspace("first"),
    "metaspace always": metaspace("always"),
    "metaspace never": metaspace("never"),
    "metaspace split": metaspace_split,
    "gemma": gemma,
    "unknown characters one by one": unfused,
}


def with_added(made: tokenizers.Tokenizer, name: str) -> tokenizers.Tokenizer:
    specials = ["<unk>", "<s>", "</s>"]
    made.add_special_tokens([AddedToken(each, normalized=False) for each in specials])
    if name != "plain":
        strips = {"lstrip": name == "strip left", "rstrip": name == "strip right"}
        normalized = name == "normalized"
        made.add_special_tokens([AddedToken("<|user|>", normalized=normalized, **strips)])
        made.add_tokens([AddedToken("<|end|>", normalized=normalized, special=False, **strips)])
        made.add_tokens([AddedToken("the fox", normalized=True, special=False)])
    return made


def load(made: tokenizers.Tokenizer, path: Path) -> Tokenizer:
    made.save(str(path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.from_pretrained(path)


def check(ours: Tokenizer, theirs: tokenizers.Tokenizer, count: int = 400) -> None:
    texts = LINES[:count]
    expected = [each.ids for each in theirs.encode_batch(texts, add_special_tokens=False)]
    found = ours.encode_batch(texts, threads=1, parse_special=True)
    assert first_difference(found, expected, texts) is None
    theirs.encode_special_tokens = True
    plain = [each.ids for each in theirs.encode_batch(texts, add_special_tokens=False)]
    theirs.encode_special_tokens = False
    assert first_difference(ours.encode_batch(texts, threads=1), plain, texts) is None
    draw = random.Random(3)
    rows = expected[:400]
    rows += [draw.choices(range(ours.vocab_size), k=draw.randrange(9)) for _ in range(count)]
    # Of a special token that is normalized the library's decoder no longer knows that it is one.
    odd = {i for token, i in ours.special_tokens.items() if theirs.id_to_token(i) != token}
    for skip in (True, False):
        asked = [row for row in rows if not skip or odd.isdisjoint(row)]
        said = theirs.decode_batch(asked, skip_special_tokens=skip)
        assert first_difference([ours.decode(row, skip) for row in asked], said, asked) is None
    for row in rows[:200]:
        stream = ours.stream_decoder()
        assert "".join(map(stream.push, row)) + stream.finish() == ours.decode(row)


@pytest.mark.parametrize("added", ["plain", "strip left", "strip right", "normalized"])
@pytest.mark.parametrize("form", BPE_FORMS)
def test_bpe_is_that_of_tokenizers(
    form: str, added: str, bpe_pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    theirs = with_added(BPE_FORMS[form](bpe_pieces), added)
    ours = load(theirs, tmp_path)
    check(ours, theirs, len(LINES) if added == "plain" else 400)
    ours.save_pretrained(tmp_path / "again")
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    check(ours, saved)
    assert Tokenizer.from_pretrained(tmp_path / "again").fingerprint == ours.fingerprint


@pytest.mark.parametrize("fallback", [False, True])
def test_unigram_is_that_of_tokenizers(
    fallback: bool, unigram_pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    # With a good score the library would find special tokens in plain text, too.
    pieces = [(piece, -99.0 if i < 3 else score) for i, (piece, score) in enumerate(unigram_pieces)]
    if not fallback:
        pieces = [each for each in pieces if not each[0].startswith("<0x")]
    theirs = tokenizers.Tokenizer(Unigram(pieces, unk_id=0, byte_fallback=fallback))
    theirs.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=not fallback)
    theirs.decoder = (
        fused(decoders.Strip(" ", 1, 0)) if fallback else decoders.Metaspace("▁", "always")
    )
    check(load(with_added(theirs, "strip right"), tmp_path), theirs)


Edit = dict[str, object]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
BACK = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"normalizer": [{"type": "Prepend", "prepend": "▁"}, {"type": "Lowercase"}]},
         "the normalizer 'Lowercase'"),
        ({"normalizer": [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}] * 2},
         "a normalizer that marks spaces several times"),
        ({"normalizer": [{"type": "Prepend", "prepend": "▁"}]}, "the stages 'Prepend' together"),
        ({"pre_tokenizer": METASPACE}, "the stages 'Prepend', 'Replace', 'Metaspace' together"),
        ({"decoder": [BACK, FUSE]}, "the decoder of 'Replace', 'Fuse'"),
        ({"decoder": [BACK, FUSE, BYTES]}, "the decoder of 'Replace', 'Fuse', 'ByteFallback'"),
        ({"decoder": [STRIP, BACK, BYTES, FUSE]}, "the decoder of 'Strip', 'Replace'"),
        ({"decoder": None}, "the decoder of no stages"),
        ({"decoder": METASPACE}, "the decoder 'Metaspace' with byte_fallback"),
        ({"pre_tokenizer": [METASPACE, METASPACE], "normalizer": None}, "the pre_tokenizer of"),
        ({"pre_tokenizer": METASPACE | {"prepend_scheme": "odd"}, "normalizer": None},
         "the prepend_scheme 'odd'"),
        ({"normalizer": {"type": "Sequence", "normalizers": 5}, "pre_tokenizer": METASPACE},
         "the normalizer 'Sequence'"),
        ({"pre_tokenizer": METASPACE | {"prepend_scheme": []}, "normalizer": None},
         "the prepend_scheme"),
        ({"single_word": True}, "the added token '<unk>' with single_word"),
        ({"dropout": 0.5}, "the BPE option dropout=0.5"),
        ({"vocab": 5}, "damaged: ValueError: the vocabulary is no object"),
        ({"merges": [["a"]]}, "damaged: ValueError: not enough values"),
        ({"content": 1.5}, "damaged: ValueError: the piece [0-9]+ is 1.5, no text"),
        ({"decoder": "Sequence"}, "the decoder of 'Sequence'"),
        ({"unk_token": "<nothing>"}, "the tokenizer is damaged: KeyError"),
    ],
)  # fmt: skip
def test_what_would_give_other_ids_is_refused(
    edit: Edit, message: str, bpe_pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    content = json.loads(with_added(llama_legacy(bpe_pieces), "plain").to_str())
    names = {"normalizer": "normalizers", "decoder": "decoders", "pre_tokenizer": "pretokenizers"}
    for key, value in edit.items():
        if key == "single_word":
            content["added_tokens"][0][key] = value
        elif key == "content":
            content["added_tokens"].append({"id": len(content["model"]["vocab"]), key: value})
        elif key in names:
            sequence = {"type": "Sequence", names[key]: value}
            content[key] = sequence if isinstance(value, list) else value
        else:
            content["model"][key] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as raised:
        Tokenizer.from_file(path)
    assert str(path) in str(raised.value)


def test_older_files_say_the_prefix_in_another_way(
    bpe_pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    content = json.loads(metaspace("never")(bpe_pieces).to_str())
    path = tmp_path / "tokenizer.json"
    stage = {"type": "Metaspace", "replacement": "▁", "split": False}
    for flag, text in ((True, "▁the"), (False, "the")):
        content["pre_tokenizer"] = stage | {"add_prefix_space": flag}
        path.write_text(json.dumps(content))
        made = Tokenizer.from_file(path)
        assert "".join(made.pieces(made.encode("the"))) == text


def test_a_text_goes_on_where_ids_came_before(
    bpe_pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    made = load(with_added(llama_legacy(bpe_pieces), "plain"), tmp_path)
    ids = made.encode("the fox")
    assert made.decode(ids) == made.decode(ids, after=[1]) == "the fox"
    assert made.decode(ids, after=ids) == " the fox"
    assert made.decode(ids, after=[*ids, 2]) == "the fox"
    stream = made.stream_decoder(after=ids)
    assert "".join(map(stream.push, ids)) + stream.finish() == " the fox"
    with pytest.raises(DataError, match="token id 100000 at position 0 is outside"):
        made.decode(ids, after=[100_000])


def test_a_unigram_without_special_tokens_is_saved(tmp_path: Path) -> None:
    pieces = [*((f"<0x{i:02X}>", -9.0) for i in range(256)), ("▁", -2.0), ("a", -1.0)]
    theirs = tokenizers.Tokenizer(Unigram(pieces, None, True))
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    theirs.decoder = fused(decoders.Strip(" ", 1, 0))
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("a é") == ours.encode("a é") == [256, 257, 256, 0xC3, 0xA9]
    assert again.fingerprint == ours.fingerprint and again.unknown_id is None


def test_cuts_by_chance_keep_the_marks(bpe_pieces: list[tuple[str, float]], tmp_path: Path) -> None:
    made = load(with_added(llama_legacy(bpe_pieces), "plain"), tmp_path)
    text = "the fox said don't go into the wood"
    drawn = {tuple(made.encode_dropped(text, 0.3, key)) for key in range(20)}
    assert {made.decode(ids) for ids in drawn} == {text} and len(drawn) > 5
    ids = made.encode(text)
    again = made.core.recut(ids, 0.5, 3)
    assert again != ids and made.decode(again) == text
    assert made.core.recut(ids, 0.0, 3) == ids


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.sampled_from([*ODD, *WORDS[:40], " "]) | st.text(max_size=4)).map("".join))
@pytest.mark.parametrize("form", ["llama legacy", "metaspace first", "gemma"])
def test_random_texts(
    form: str, text: str, bpe_pieces: list[tuple[str, float]], tmp_path_factory: Any
) -> None:
    if form not in LOADED:
        theirs = with_added(BPE_FORMS[form](bpe_pieces), "strip right")
        LOADED[form] = load(theirs, tmp_path_factory.mktemp("drawn")), theirs
    ours, theirs = LOADED[form]
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, parse_special=True) == ids
    assert ours.decode(ids) == theirs.decode(ids)


LOADED: dict[str, tuple[Tokenizer, tokenizers.Tokenizer]] = {}
