"""A tokenizer as the JSON that transformers.AutoTokenizer reads."""

from __future__ import annotations

from typing import Any

from omnima.tokenizers.description import (
    ROLE_ADDED,
    ROLE_BYTE,
    ROLE_SPECIAL,
    ROLE_USER,
    Description,
    Found,
    merges_by_score,
)
from omnima.tokenizers.marking_stages import marking_json
from omnima.tokenizers.model_file import OWN_KEY, own
from omnima.tokenizers.stages import (
    WORDS_JSON,
    byte_level_json,
    pre_tokenizer_json,
    template_json,
)


def tokenizer_json(description: Description) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    if description.marking is not None:
        return _marked_json(description)
    added = [i for i, role in enumerate(description.roles) if role in (ROLE_SPECIAL, ROLE_ADDED)]
    fallback = [] if description.kind in ("char", "word") else [{"type": "ByteFallback"}]
    pattern = description.pattern
    word = description.kind == "word"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(i, description.pieces[i], description.roles[i] == ROLE_SPECIAL)
            for i in added
        ],
        "normalizer": {"type": "NFC"} if description.nfc else None,
        "pre_tokenizer": None
        if pattern is None
        else WORDS_JSON
        if word
        else pre_tokenizer_json(pattern),
        "post_processor": template_json(description),
        "decoder": {"type": "Sequence", "decoders": [*fallback, {"type": "Fuse"}]}
        if pattern is None or word
        else byte_level_json(),
        "model": _word_json(description)
        if word
        else _unigram_json(description)
        if description.kind == "unigram"
        else _bpe_json(description),
    }


def _marked_json(description: Description) -> dict[str, Any]:
    assert description.marking is not None
    flags = {each.id: each for each in description.found}
    added = []
    for i, role in enumerate(description.roles):
        if role not in (ROLE_SPECIAL, ROLE_USER):
            continue
        token = added_token(i, description.pieces[i], role == ROLE_SPECIAL)
        found = flags.get(i, Found(i, description.pieces[i]))
        token |= {"lstrip": found.strips_left, "rstrip": found.strips_right}
        # Those of SentencePiece are found in the text as it is, as transformers' converters say.
        token["normalized"] = found.after_normalizer and not description.marking.sentencepiece
        added.append(token)
    unigram = description.kind == "unigram"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **marking_json(description.marking),
        "post_processor": template_json(description),
        "model": _unigram_json(description) if unigram else _bpe_json(description),
    }


def added_token(token_id: int, content: str, special: bool) -> dict[str, Any]:
    """Return the entry of a token that stands beside the model."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **flags, "special": special}


def _bpe_json(description: Description) -> dict[str, Any]:
    pieces = description.pieces
    marked = description.marking is not None
    merges = merges_by_score(description) if description.scores else description.merges
    bytes_there = ROLE_BYTE in description.roles
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if description.unknown is None else pieces[description.unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": description.fuse_unknown,
        "byte_fallback": bytes_there
        if marked
        else description.kind != "char" and description.pattern is None,
        "ignore_merges": description.whole_first,
        "vocab": {piece: i for i, piece in enumerate(pieces)},
        "merges": [[pieces[left], pieces[right]] for left, right, _ in merges.tolist()],
    }


def _word_json(description: Description) -> dict[str, Any]:
    assert description.unknown is not None
    return {
        "type": "WordLevel",
        "vocab": {piece: i for i, piece in enumerate(description.pieces)},
        "unk_token": description.pieces[description.unknown],
    }


def _unigram_json(description: Description) -> dict[str, Any]:
    # unk_id is to name a token, though the byte tokens leave nothing unknown: padding, or another
    # special token if there is one, which text never gives.
    specials = (i for i, role in enumerate(description.roles) if role == ROLE_SPECIAL)
    named = (each for each in (description.unknown, description.pad) if each is not None)
    return {
        "type": "Unigram",
        "unk_id": next(named, next(specials, None)),
        "vocab": [
            [piece, score]
            for piece, score in zip(description.pieces, description.scores, strict=True)
        ],
        "byte_fallback": ROLE_BYTE in description.roles,
    }


def config_json(description: Description) -> dict[str, Any]:
    """Return the content of tokenizer_config.json."""
    names = {
        "bos_token": description.bos,
        "eos_token": description.eos,
        "pad_token": description.pad,
    }
    named = {*names.values(), description.unknown}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    config |= {name: description.pieces[i] for name, i in names.items() if i is not None}
    if description.unknown is not None:
        config["unk_token"] = description.pieces[description.unknown]
    others = [
        description.pieces[i]
        for i, role in enumerate(description.roles)
        if role == ROLE_SPECIAL and i not in named
    ]
    if others:
        config["additional_special_tokens"] = others
    if description.marking is not None and description.marking.sentencepiece:
        config[OWN_KEY] = own(description)
    return config
