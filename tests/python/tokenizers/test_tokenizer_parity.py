"""The saved files give the same ids in transformers, on text that no tokenizer has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnima.tokenizers import Tokenizer

UNSEEN = [
    "",
    " ",
    "\n",
    "        ",
    "a",
    "hello, world! the fox  sees   the river",
    "▁▁ ▁a ▁the<unk>▅⁇",
    "".join(map(chr, range(0x180))),
    "\x00\x01\x7f\u0085\u2028\u200b\ufeff\ufffd\ue000\U0010ffff",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ✈️ e\u0301 é",
    "for (int i = 0; i < 10; ++i) {\n\tsum += x[i];\r\n}\n",
    "<0x41><0x0A> <0xZZ> <0x4 <<0x41>>",
    "the" * 300,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "שלום עולם مرحبا بالعالم नमस्ते สวัสดี こんにちは 안녕하세요",
    "Zwölf Boxkämpfer jagen; 我爱北京 🦊 12 wishes\n",
]
# Pieces of the vocabulary and what surrounds them: random text meets merges, ties and control
# tokens often.
FRAGMENTS = [
    "the",
    " the",
    "fox",
    " fo",
    "x",
    " ",
    "  ",
    "wish",
    "r",
    "e",
    "s",
    "ee",
    "1",
    "\n",
    "\t",
    "▁",
    "🦊",
    "我",
    "é",
    "<0x41>",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<|user|>",
    "<|user",
    "|>",
    "<",
    ">",
]
mixed_text = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=40).map(
    "".join
)


def ids_of(theirs: Any, text: str) -> list[int]:
    with_specials = list(theirs(text)["input_ids"])
    assert with_specials == list(theirs(text, add_special_tokens=False)["input_ids"])
    return with_specials


@pytest.mark.parametrize("text", UNSEEN)
def test_same_ids_on_unseen_text(
    tokenizer: Tokenizer, in_transformers: Callable[[Tokenizer], Any], text: str
) -> None:
    theirs = in_transformers(tokenizer)
    assert tokenizer.encode(text, parse_special=True) == ids_of(theirs, text)
    if not any(special in text for special in tokenizer.special_tokens):
        assert tokenizer.encode(text) == ids_of(theirs, text)


@settings(max_examples=150, deadline=None)
@given(text=mixed_text)
def test_same_ids_on_random_text(
    tokenizer: Tokenizer, in_transformers: Callable[[Tokenizer], Any], text: str
) -> None:
    theirs = in_transformers(tokenizer)
    ids = tokenizer.encode(text, parse_special=True)
    assert ids == ids_of(theirs, text)
    if tokenizer.kind != "char":
        assert theirs.decode(ids) == text


@pytest.mark.parametrize(
    "name",
    [
        "text/en_moby_dick.txt",
        "text/en_technical.jsonl.gz",
        "text/es_don_quijote.txt",
        "text/fr_monte_cristo_1.txt",
        "squad/xquad.zh.json.gz",
    ],
)
def test_same_ids_on_books(
    tokenizer: Tokenizer,
    in_transformers: Callable[[Tokenizer], Any],
    name: str,
    read_text: Callable[[str, int], str],
) -> None:
    text = read_text(name, 30_000)
    assert tokenizer.encode(text, parse_special=True) == ids_of(in_transformers(tokenizer), text)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_same_ids_with_a_vocabulary_learnt_from_a_book(
    kind: str, in_transformers: Callable[[Tokenizer], Any], read_text: Callable[[str, int], str]
) -> None:
    learnt = Tokenizer.train([read_text("text/fr_monte_cristo_1.txt", 300_000)], kind, 3000)
    assert learnt.vocab_size == 3000
    theirs = in_transformers(learnt)
    assert len(theirs) == 3000
    for name in ("text/fr_trois_mousquetaires.txt", "text/en_moby_dick.txt"):
        text = read_text(name, 50_000)
        assert learnt.encode(text) == ids_of(theirs, text)
        assert learnt.decode(learnt.encode(text)) == text


def test_transformers_knows_the_special_tokens(
    tokenizer: Tokenizer, in_transformers: Callable[[Tokenizer], Any]
) -> None:
    theirs = in_transformers(tokenizer)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    )
    assert len(theirs) == tokenizer.vocab_size
    assert set(tokenizer.special_tokens) == set(theirs.all_special_tokens)


def test_what_transformers_saves_again_is_read_again(
    tokenizer: Tokenizer, in_transformers: Callable[[Tokenizer], Any], tmp_path: Any, story: str
) -> None:
    in_transformers(tokenizer).save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(story) == tokenizer.encode(story)
