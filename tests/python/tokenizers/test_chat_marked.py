"""Conversations for tokenizers that put a space in front of a text, and for Gemma's kind."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import DataError
from omnima.tokenizers import Tokenizer

CHAT = [
    {"role": "user", "content": "the fox <s> and <tag>"},
    {"role": "assistant", "content": "a hen\n\n  ä"},
]
TEMPLATE = (
    "{% for m in messages %}<s>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>"
    "{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


def marked(path: Path, prefix: bool, user: tuple[str, ...] = ()) -> tuple[Tokenizer, Any]:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    from tokenizers import AddedToken, decoders, models, normalizers

    specials = ["<unk>", "<s>", "</s>"]
    letters = sorted({c for m in CHAT for c in m["content"] if c.isalpha() and c < "z"})
    pieces = [*specials, *(f"<0x{i:02X}>" for i in range(256)), "▁", *letters, "▁a", "th"]
    merges = [("▁", "a"), ("t", "h")]
    made = tokenizers.Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)}, merges,
            unk_token="<unk>", fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    first = [normalizers.Prepend("▁")] if prefix else []
    made.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    made.decoder = decoders.Sequence(back)
    made.add_special_tokens([AddedToken(each, normalized=False) for each in specials])
    made.add_tokens([AddedToken(each, normalized=False, special=False) for each in user])
    made.save(str(path / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(named))
    (path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    return Tokenizer.from_pretrained(path), theirs


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_transformers(prefix: bool, tmp_path: Path) -> None:
    ours, theirs = marked(tmp_path, prefix)
    options: list[dict[str, Any]] = [{}]
    if "sanitize_control_tokens" in inspect.signature(theirs.apply_chat_template).parameters:
        options.append({"sanitize_control_tokens": True})
    for each in options:
        expected = theirs.apply_chat_template(
            CHAT, chat_template=TEMPLATE, return_dict=False, **each
        )
        assert ours.apply_chat_template(CHAT, template=TEMPLATE, **each) == expected


@pytest.mark.parametrize("prefix", [True, False])
def test_the_mask_is_that_of_transformers(prefix: bool, tmp_path: Path) -> None:
    ours, theirs = marked(tmp_path, prefix)
    expected = theirs.apply_chat_template(
        CHAT, chat_template=TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
    )
    found = ours.encode_chat(CHAT, template=TEMPLATE)
    assert found.ids == expected["input_ids"]
    assert found.assistant_mask == expected["assistant_masks"]
    said = [i for i, mine in zip(found.ids, found.assistant_mask) if mine]
    assert ours.decode(said, skip_special=False) == CHAT[1]["content"] + "</s>"
    mark = [{"role": "assistant", "content": "a\u2581a"}]
    with pytest.raises(DataError, match="byte by byte"):
        ours.encode_chat(mark, template=TEMPLATE)


def test_tokens_found_in_every_text_cannot_be_kept_out(tmp_path: Path) -> None:
    ours, _ = marked(tmp_path, prefix=False, user=("<tag>",))
    with pytest.raises(DataError, match="'<tag>' in a message cannot be plain text"):
        ours.apply_chat_template(CHAT, template=TEMPLATE + "<tag>", sanitize_control_tokens=True)
