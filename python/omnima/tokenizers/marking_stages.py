"""The stages of tokenizer.json that write spaces as U+2581, and read them back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from omnima.errors import DataError
from omnima.tokenizers.description import SPACE_MARK, Marking, Opening, Prefix

Refuse = Callable[[str], DataError]
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
_PREPEND = {"type": "Prepend", "prepend": SPACE_MARK}
_BACK = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
_FUSE = [_BACK, {"type": "ByteFallback"}, {"type": "Fuse"}]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
# Gemma's files have it behind the replacement of all spaces, where it cuts nothing.
_IDLE_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
_SCHEMES: dict[str, Prefix] = {"first": "first", "always": "always", "never": "never"}


def is_marked(content: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json writes spaces as U+2581."""
    normalizers = _flat(content.get("normalizer"), "normalizers")
    cutters = _flat(content.get("pre_tokenizer"), "pretokenizers")
    return any(stage in (_REPLACE, _PREPEND) for stage in normalizers) or any(
        _type(stage) == "Metaspace" for stage in cutters
    )


def read_marking(content: dict[str, Any], refuse: Refuse) -> Marking:
    """Return what the normalizer, the pre_tokenizer and the decoder of a tokenizer.json mean."""
    normalizers = _flat(content.get("normalizer"), "normalizers")
    cutters = _flat(content.get("pre_tokenizer"), "pretokenizers")
    every = _PREPEND in normalizers
    for stage in normalizers:
        if stage not in (_REPLACE, _PREPEND):
            raise refuse(f"the normalizer '{_type(stage)}'")
    if len(normalizers) > 1 + every:
        raise refuse("a normalizer that marks spaces several times")
    if normalizers:
        if _REPLACE not in normalizers or cutters not in ([], [_IDLE_SPLIT]):
            names = ", ".join(f"'{_type(stage)}'" for stage in [*normalizers, *cutters])
            raise refuse(f"the stages {names} together")
        prefix: Prefix = "every" if every else "never"
        return Marking(prefix, _opening(content, refuse), in_normalizer=True)
    prefix, words = _metaspace(cutters, refuse)
    return Marking(prefix, _opening(content, refuse), words=words)


def _metaspace(cutters: list[Any], refuse: Refuse) -> tuple[Prefix, bool]:
    if len(cutters) != 1 or _type(cutters[0]) != "Metaspace":
        names = ", ".join(f"'{_type(stage)}'" for stage in cutters)
        raise refuse(f"the pre_tokenizer of {names}")
    stage = cutters[0]
    scheme = _scheme(stage, refuse)
    return scheme, bool(stage.get("split", True))


def _scheme(stage: dict[str, Any], refuse: Refuse) -> Prefix:
    if stage.get("replacement") != SPACE_MARK:
        raise refuse(f"the replacement {stage.get('replacement')!r} of 'Metaspace'")
    scheme = stage.get("prepend_scheme", "always")
    if stage.get("add_prefix_space") is False:  # how older files say it
        scheme = "never"
    if not isinstance(scheme, str) or scheme not in _SCHEMES:
        raise refuse(f"the prepend_scheme {scheme!r} of 'Metaspace'")
    return _SCHEMES[scheme]


def _opening(content: dict[str, Any], refuse: Refuse) -> Opening:
    decoders = _flat(content.get("decoder"), "decoders")
    if len(decoders) == 1 and _type(decoders[0]) == "Metaspace":
        if content["model"].get("byte_fallback"):
            raise refuse("the decoder 'Metaspace' with byte_fallback")
        return "nothing" if _scheme(decoders[0], refuse) == "never" else "piece"
    rest = [stage for stage in decoders if stage not in _FUSE]
    fuse, byte = ({"type": name} for name in ("Fuse", "ByteFallback"))
    ordered = _BACK in decoders and fuse in decoders
    if byte in decoders and fuse in decoders:
        ordered = ordered and decoders.index(byte) < decoders.index(fuse)
    elif content["model"].get("byte_fallback"):
        ordered = False
    strips = rest == [_STRIP] and decoders[-1] == _STRIP
    if not ordered or (rest and not strips):
        names = ", ".join(f"'{_type(stage)}'" for stage in decoders)
        raise refuse(f"the decoder of {names or 'no stages'}")
    return "space" if strips else "nothing"


def marking_json(marking: Marking) -> dict[str, Any]:
    """Return the normalizer, pre_tokenizer and decoder of tokenizer.json."""
    strip = [_STRIP] if marking.opening in ("space", "mark", "marks") else []
    stages: dict[str, Any] = {
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*_FUSE, *strip]},
    }
    if marking.in_normalizer:
        clean = _cleaning(marking)
        prefix = [] if marking.prefix == "never" else [_PREPEND]
        normalizers = [*clean, *prefix, _REPLACE]
        stages["normalizer"] = (
            _REPLACE if len(normalizers) == 1 else {"type": "Sequence", "normalizers": normalizers}
        )
        return stages
    metaspace = {
        "type": "Metaspace",
        "replacement": SPACE_MARK,
        "prepend_scheme": marking.prefix,
        "split": marking.words,
    }
    stages["pre_tokenizer"] = metaspace
    if marking.opening == "piece":
        stages["decoder"] = {**metaspace, "prepend_scheme": "always"}
    return stages


def _cleaning(marking: Marking) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = []
    if marking.characters is not None:
        packed = base64.b64encode(marking.characters).decode("ascii")
        stages.append({"type": "Precompiled", "precompiled_charsmap": packed})
    if marking.collapse:
        for pattern, content in ((rf"\A +|[ {SPACE_MARK}]+\z", ""), (r" {2,}", " ")):
            stages.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    return stages


def _flat(stage: Any, parts: str) -> list[Any]:
    if stage is None:
        return []
    if not isinstance(stage, dict) or stage.get("type") != "Sequence":
        return [stage]
    inside = stage.get(parts)
    if not isinstance(inside, list):
        return [stage]
    return [each for part in inside for each in _flat(part, parts)]


def _type(stage: Any) -> Any:
    return stage.get("type") if isinstance(stage, dict) else stage
