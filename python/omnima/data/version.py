"""The version of data: hashes that say which text, which cleaning and which tokenizer were used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnima.data.base import Source, hash_file
from omnima.data.cleaning.record import cleaned_record


def version_of(source: Source, files: Sequence[Sequence[Any]] | None = None) -> dict[str, Any]:
    """The hash of a source's text, and of the cleaning that its files have behind them.

    The same files give the same hash in every folder and on every machine.

    Parameters
    ----------
    source : Source
        What is read.
    files : sequence, optional
        Of each file path, size, time and sha256, where these are known already.

    Returns
    -------
    dict
        ``data``: a sha256 over what is read and the contents of all files. ``cleaning``: the hash
        of the recipe that made the files, a list of them where files differ, or None.
    """
    paths = [str(path) for path in source.files()]
    hashes = [entry[3] for entry in files] if files is not None else list(map(_hash, paths))
    identity = source.identity()
    for path in sorted(paths, key=len, reverse=True):
        identity = identity.replace(path, Path(path).name)
    digest = hashlib.sha256("\n".join([identity, *hashes]).encode()).hexdigest()
    records = [cleaned_record(Path(path), sha) for path, sha in zip(paths, hashes)]
    recipes = list(dict.fromkeys(record["cleaning"] for record in records if record is not None))
    return {"data": digest, "cleaning": recipes[0] if len(recipes) == 1 else recipes or None}


def _hash(path: str) -> str:
    return hash_file(Path(path))
