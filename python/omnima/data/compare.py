"""What data holds (`describe`) and what changed between two versions of it (`compare`)."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from omnima.data.base import Source, hash_file
from omnima.data.cleaning.record import cleaned_record
from omnima.data.cleaning.step import utf8_size
from omnima.data.cleaning.words import split_words
from omnima.data.prepare import AnyTokenizer
from omnima.data.version import version_of
from omnima.errors import DataError

_SHOWN = 3  # examples of documents
_SHOWN_CHARACTERS = 80
_PERCENTILES = (5, 25, 50, 75, 95)
_LANGUAGES_OF = 2000  # documents, evenly spread as they come


def describe(source: Source, tokenizer: AnyTokenizer | None = None) -> dict[str, Any]:
    """Count documents, bytes, characters, words, duplicates and lengths, in one reading.

    Languages are told where `py3langid` is installed, from the first 2,000 documents.
    """
    sizes: list[int] = []
    size = words = tokens = repeated = 0
    seen: set[bytes] = set()
    languages: Counter[str] | None = Counter()
    alphabet: Counter[str] = Counter()
    for text in source.documents():
        sizes.append(len(text))
        size += utf8_size(text)
        words += len(split_words([text]).numbers)
        digest = _digest(text)
        repeated += digest in seen
        seen.add(digest)
        alphabet.update(text)
        if tokenizer is not None:
            tokens += len(tokenizer.encode_batch([text])[0])
        if languages is not None and len(sizes) <= _LANGUAGES_OF:
            languages = _told(text, languages)
    if not sizes:
        raise DataError("there is no document in the data; give at least one with some text.")
    result: dict[str, Any] = {
        "documents": len(sizes),
        "bytes": size,
        "characters": sum(sizes),
        "words": words,
        "exact_duplicates": repeated,
        "skipped": source.skipped,
        "different_characters": len(alphabet),
        "characters_a_document": {
            "least": min(sizes),
            **{
                f"p{percent}": int(value)
                for percent, value in zip(_PERCENTILES, np.percentile(sizes, _PERCENTILES))
            },
            "most": max(sizes),
            "mean": round(sum(sizes) / len(sizes), 1),
        },
        "languages": None if languages is None else dict(languages.most_common()),
    }
    if tokenizer is not None:
        result["tokens"] = tokens
        result["bytes_a_token"] = round(size / max(tokens, 1), 3)
    return {**result, "version": version_of(source)}


def _told(text: str, languages: Counter[str]) -> Counter[str] | None:
    from omnima.data.cleaning.language import identify
    from omnima.errors import OmnimaError

    try:
        languages[identify(text)[0]] += 1
    except OmnimaError:  # the library is an extra: without it the answer is "not known"
        return None
    return languages


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def compare(before: Source, after: Source) -> dict[str, Any]:
    """Say which documents came, went and stayed, and what else differs between two versions.

    Documents are equal letter for letter; one that comes several times counts as often.
    """
    held: Counter[bytes] = Counter()
    totals = {"before": [0, 0], "after": [0, 0]}
    for text in before.documents():
        held[_digest(text)] += 1
        _add(totals["before"], text)
    left = held.copy()
    kept = kept_bytes = 0
    added: list[str] = []
    for text in after.documents():
        _add(totals["after"], text)
        digest = _digest(text)
        if left[digest] > 0:
            left[digest] -= 1
            kept += 1
            kept_bytes += utf8_size(text)
        elif len(added) < _SHOWN:
            added.append(_short(text))
    removed = _examples(before, left)
    versions = version_of(before), version_of(after)
    documents = {side: total[0] for side, total in totals.items()}
    sizes = {side: total[1] for side, total in totals.items()}
    return {
        "same": kept == documents["before"] == documents["after"],
        "documents": documents,
        "bytes": sizes,
        "kept": {"documents": kept, "bytes": kept_bytes},
        "added": _difference(documents["after"] - kept, sizes["after"] - kept_bytes, added),
        "removed": _difference(documents["before"] - kept, sizes["before"] - kept_bytes, removed),
        "cleaning": _cleanings(before, after),
        "versions": {"before": versions[0], "after": versions[1]},
    }


def _add(total: list[int], text: str) -> None:
    total[0] += 1
    total[1] += utf8_size(text)


def _difference(documents: int, size: int, examples: list[str]) -> dict[str, Any]:
    return {"documents": documents, "bytes": size, "examples": examples}


def _examples(source: Source, left: Counter[bytes]) -> list[str]:
    """The beginnings of documents that have gone; reads only as far as it must."""
    examples: list[str] = []
    left = left.copy()
    if sum(left.values()):
        for text in source.documents():
            digest = _digest(text)
            if left[digest] > 0:
                left[digest] -= 1
                examples.append(_short(text))
                if len(examples) == _SHOWN:
                    break
    return examples


def _short(text: str) -> str:
    line = " ".join(text[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _cleanings(before: Source, after: Source) -> dict[str, Any] | None:
    """The steps of cleaning that differ between the records of two single files."""
    records = [_record(source) for source in (before, after)]
    if records == [None, None]:
        return None
    steps = [
        {each["step"]: each["options"] for each in record["steps"]} if record else {}
        for record in records
    ]
    names = dict.fromkeys([*steps[0], *steps[1]])
    return {
        name: {"before": steps[0].get(name), "after": steps[1].get(name)}
        for name in names
        if steps[0].get(name) != steps[1].get(name)
    }


def _record(source: Source) -> dict[str, Any] | None:
    files = source.files()
    return cleaned_record(Path(files[0]), hash_file(files[0])) if len(files) == 1 else None
