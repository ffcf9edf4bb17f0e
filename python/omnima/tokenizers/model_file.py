"""SentencePiece's model file in a directory, with the config beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omnima.errors import DataError
from omnima.tokenizers import sentencepiece_file
from omnima.tokenizers.description import ROLE_USER, Description

OWN_KEY = "omnima_sentencepiece"  # what a model file of SentencePiece cannot say


def read(path: Path, config: dict[str, Any]) -> Description:
    """Read a model file of SentencePiece with what the config beside it adds."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the tokenizer cannot be read: {error.strerror}") from None
    found = sentencepiece_file.read(path, content, marked=OWN_KEY in config)
    said = config.get(OWN_KEY, {})
    strips = said.get("strips_right", []) if isinstance(said, dict) else None
    if not isinstance(strips, list) or not all(isinstance(each, int) for each in strips):
        config_path = path.with_name("tokenizer_config.json")
        raise DataError(
            f"{config_path}: {OWN_KEY} is {said!r}, not an object with a list of ids under"
            " strips_right"
        )
    return _with_own(found, said)


def own(description: Description) -> dict[str, Any]:
    """Return what goes under ``OWN_KEY`` into the config beside a model file."""
    users = [each for each in description.found if description.roles[each.id] == ROLE_USER]
    return {
        "adds_bos": description.adds_bos,
        "adds_eos": description.adds_eos,
        "finds_in": "text" if any(not each.after_normalizer for each in users) else "marked text",
        "strips_right": [each.id for each in description.found if each.strips_right],
    }


def _with_own(description: Description, own: dict[str, Any]) -> Description:
    """Return what a model file says with what stood under ``OWN_KEY`` beside it."""
    strips = set(own.get("strips_right", ()))
    in_text = own.get("finds_in") == "text"
    return replace(
        description,
        adds_bos=bool(own.get("adds_bos")) and description.bos is not None,
        adds_eos=bool(own.get("adds_eos")) and description.eos is not None,
        found=[
            replace(
                each,
                strips_right=each.id in strips,
                after_normalizer=each.after_normalizer and not in_text,
            )
            for each in description.found
        ],
    )
