"""The stages of tokenizer.json around its model: how text is cut before, what is added after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omnima.errors import DataError
from omnima.tokenizers.description import Description

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_CAPITALS, _SMALLS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SYMBOLS, _SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+|\s+(?!\S)|\s+"

# As the regular expressions of tokenizer.json spell them; the scanners are in C++ (text/split.cpp).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
REGEXES = {
    "llama3": rf"{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}",
    "qwen2": rf"{_WORDS}|\p{{N}}|{_SYMBOLS}|{_SPACES}",
    "o200k": "|".join(
        (
            rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALLS}+{_CONTRACTION}?",
            rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALLS}*{_CONTRACTION}?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            _SPACES,
        )
    ),
    "cl100k": rf"{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}|\s+\z|{_SPACES}",
    "gpt2": GPT2,
}
# How word-level vocabularies cut text: into words that keep the space before them.
WORDS_JSON = {
    "type": "Split",
    "pattern": {"Regex": GPT2},
    "behavior": "Isolated",
    "invert": False,
}
Refuse = Callable[[str], DataError]


@dataclass(frozen=True)
class Template:
    """The tokens that AutoTokenizer puts before and after a text."""

    before: str | None = None
    after: str | None = None


def byte_level_json(use_regex: bool = True) -> dict[str, Any]:
    """Return the stage of tokenizer.json that spells bytes as characters, or reads them back."""
    flags = {"add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **flags}


def pre_tokenizer_json(pattern: str) -> dict[str, Any]:
    """Return the stage of tokenizer.json that cuts text by a pattern into bytes."""
    byte_level = byte_level_json(pattern in ("gpt2", "gpt2-digits"))
    if pattern == "gpt2":
        return byte_level
    if pattern == "gpt2-digits":
        first: dict[str, Any] = {"type": "Digits", "individual_digits": True}
    else:
        regex = {"Regex": REGEXES[pattern]}
        first = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [first, byte_level]}


def read_pre_tokenizer(stage: Any, refuse: Refuse) -> str | None:
    """Return the name of the pattern that a stage means; None where there is no stage."""
    if stage is None:
        return None
    kind = stage.get("type") if isinstance(stage, dict) else None
    parts = stage.get("pretokenizers") if kind == "Sequence" else [stage]
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts or ()]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"], ["Digits", "ByteLevel"]):
        raise refuse(f"the pre_tokenizer '{kind or stage}'")
    byte_level = parts[-1]
    if byte_level.get("add_prefix_space", True):
        raise refuse("the pre_tokenizer 'ByteLevel' with add_prefix_space")
    by_itself = bool(byte_level.get("use_regex", True))
    if by_itself != (kinds[0] != "Split"):
        raise refuse(f"the pre_tokenizer 'ByteLevel' with use_regex={by_itself} in {kinds}")
    if kinds[0] == "Digits":
        if not parts[0].get("individual_digits"):
            raise refuse("the pre_tokenizer 'Digits' without individual_digits")
        return "gpt2-digits"
    return "gpt2" if kinds[0] == "ByteLevel" else _of_split(parts[0], refuse)


def _of_split(split: dict[str, Any], refuse: Refuse) -> str:
    how = (split.get("behavior"), split.get("invert", False))
    if how not in (("Isolated", False), ("Removed", True)):
        raise refuse(f"the pre_tokenizer 'Split' with behavior={how[0]} and invert={how[1]}")
    pattern = split.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    for name, known in REGEXES.items():
        if regex == known:
            return name
    raise refuse(f"the split pattern '{regex or pattern}' (known: {', '.join(REGEXES)})")


def template_json(description: Description) -> dict[str, Any] | None:
    """Return the stage of tokenizer.json that adds begin and end tokens; None if it adds none."""
    before = [description.bos] if description.adds_bos else []
    after = [description.eos] if description.adds_eos else []
    names = {description.pieces[i]: i for i in [*before, *after] if i is not None}
    if not names:
        return None

    def tokens(ids: list[int | None], kind: int) -> list[dict[str, Any]]:
        return [
            {"SpecialToken": {"id": description.pieces[i], "type_id": kind}}
            for i in ids
            if i is not None
        ]

    def text(name: str, kind: int) -> list[dict[str, Any]]:
        return [
            *tokens(before, kind),
            {"Sequence": {"id": name, "type_id": kind}},
            *tokens(after, kind),
        ]

    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": [*text("A", 0), *text("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [i], "tokens": [token]} for token, i in names.items()
        },
    }


def read_template(stage: Any, refuse: Refuse) -> Template:
    """Return what a stage adds to a text: at most one token before it and one after it."""
    if stage is None:
        return Template()
    if not isinstance(stage, dict):
        raise refuse(f"the post_processor '{stage}'")
    if stage.get("type") == "Sequence":
        found = [read_template(part, refuse) for part in stage.get("processors") or ()]
        adding = [each for each in found if each != Template()]
        if len(adding) > 1:
            raise refuse("a post_processor of several templates")
        return adding[0] if adding else Template()
    if stage.get("type") == "ByteLevel":  # only moves offsets
        return Template()
    if stage.get("type") != "TemplateProcessing":
        raise refuse(f"the post_processor '{stage.get('type')}'")
    shape = [next(iter(part)) for part in stage.get("single") or ()]
    if shape.count("Sequence") != 1 or len(shape) > 1 + shape.count("SpecialToken"):
        raise refuse("the post_processor 'TemplateProcessing' without the text in it once")
    at = shape.index("Sequence")
    tokens = [part["SpecialToken"]["id"] for part in stage["single"] if "SpecialToken" in part]
    before, after = tokens[:at], tokens[at:]
    if len(before) > 1 or len(after) > 1:
        raise refuse("the post_processor 'TemplateProcessing' with several tokens on one side")
    return Template(before[0] if before else None, after[0] if after else None)
