"""Texts and vocabularies for tests of tokenizers whose pieces spell spaces as U+2581."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from typing import Any

import sentencepiece

WORDS = (
    "the fox said don't go into wood once upon a time there was 12"
    " wishes 345 El río y la niña años corazón où déjà l'été français"
    " garçon Zwölf Boxkämpfer jagen Viktor quer über großen Привет мир"
    " как дела сегодня 我爱北京天安门 人工智能 こんにちは 世界 ありがとう 안녕하세요"
    " שלום עולם مرحبا بالعالم नमस्ते สวัสดี def return for in range(10): self.x += y[i];"
    ' #include <stdio.h> {"key": [1, 2.5]} https://example.org/a?b=c --'
    " == != ... 'quoted' “quotes” café naïve 🦊 🍎"
).split(" ")
ODD = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "▁", "▁▁", " ▁ ", "a▁b",
    "▁a", "\xa0", "\u3000", "\u2003x", "👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "é",
    "\ufeff", "\u200b", "\x00", "\x01\x7f", "�", "\U0010ffff", "\ue000", "ﬁ ① Ａ ½",
    "<s>", "</s>", "<unk>", "<0x41>", "<0x0A>", "<s>a", "a</s>b", "<|user|>",
    "  <|user|>  hi", "<|end|>\n", "<tag>", " <tag> ", "aaaaaaa", "aaaa aaa",
    "----====", "the" * 40, "𐍈𐌰𐌹", "ᏣᎳᎩ", "   leading", "trailing   ", "in   side",
    " a b  c   d    e", "\tif x:\n\t\treturn  y\n\n\n",
    "x=1;\n    y=2;\n        z=3;",
]  # fmt: skip


def lines(count: int, seed: int = 0) -> list[str]:
    """Return texts of several languages, code, emoji, odd spaces and tokens written out."""
    draw = random.Random(seed)
    made = list(ODD)
    while len(made) < count:
        parts = []
        for _ in range(draw.randrange(1, 14)):
            parts.append(draw.choice(WORDS) if draw.random() < 0.85 else draw.choice(ODD))
            parts.append(draw.choice([" ", " ", " ", " ", "", "  ", "\n"]))
        made.append("".join(parts))
    return made


def corpus() -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=12)) for _ in range(600)] + [
        " " * draw.randrange(1, 9) + "a" * draw.randrange(1, 9) for _ in range(60)
    ]


def train(kind: str = "bpe", vocab_size: int = 700, **options: Any) -> bytes:
    """Return a model of SentencePiece learnt from :func:`corpus`."""
    model = io.BytesIO()
    settings = {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 0.98,
        "num_threads": 1,
        "minloglevel": 2,
        "hard_vocab_limit": False,
    } | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type=kind,
        vocab_size=vocab_size,
        **settings,
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[tuple[str, float]]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]


def first_difference(ours: Sequence[Any], theirs: Sequence[Any], texts: Sequence[Any]) -> Any:
    """Return the first text with what differs, or None."""
    for mine, other, text in zip(ours, theirs, texts, strict=True):
        if list(mine) != list(other):
            return text, list(mine), list(other)
    return None
