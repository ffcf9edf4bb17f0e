"""Steps that drop documents which came before: the same text, or nearly the same.

Near duplicates are found by MinHash and locality-sensitive hashing (Broder 1997; Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3): signatures of runs of words by `rensa`,
bands of the signature as buckets, and candidates accepted by the similarity that their signatures
show.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from omnima._blocks import blocks_of
from omnima.data.cleaning.step import Counts, Step, TextStep, check_between
from omnima.data.cleaning.words import mix, runs, split_words
from omnima.errors import ConfigError, OmnimaError

Signatures = npt.NDArray[np.uint32]  # [documents, permutations]
Pairs = npt.NDArray[np.int64]  # [pairs, 2], the earlier document first

_BATCH_BYTES = 1 << 19  # text whose signatures are made at once
_COMPARED = 1 << 16  # pairs compared at once
# A band is one bucket's key. Four rows: two documents as alike as the threshold 0.7 meet in at
# least one of 32 bands with probability 1 - (1 - 0.7^4)^32 = 0.9998.
_BAND_ROWS = 4


@dataclass(frozen=True)
class Exact(TextStep):
    """Drop every document that came before, letter for letter."""

    name = "exact"
    meaning = "drop documents that came before, letter for letter (white space at the ends aside)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seen", set())

    def apply(self, text: str, counts: Counts) -> str | None:
        seen: set[bytes] = self._seen  # type: ignore[attr-defined]
        digest = hashlib.blake2b(text.strip().encode(), digest_size=16).digest()
        if digest in seen:
            counts.dropped["came before"] += 1
            return None
        seen.add(digest)
        return text

    def prepare(self) -> None:
        self._seen.clear()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Near(Step):
    """Drop documents that are nearly the same as an earlier one.

    Two documents are near when the sets of their runs of `ngram` words have a Jaccard similarity
    of at least `threshold`. Of a chain of near documents the first stays.
    """

    name = "near"
    meaning = "drop documents that are nearly the same as an earlier one (MinHash)"
    threshold: float = 0.7
    ngram: int = 3
    permutations: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_between("threshold", self.threshold, 0.3, 1)
        check_between("ngram", self.ngram, 1, 50)
        check_between("permutations", self.permutations, 16, 4096)
        check_between("seed", self.seed, 0, 2**32)
        if self.permutations % _BAND_ROWS:
            raise ConfigError(f"permutations is {self.permutations}; expected a multiple of 4.")

    def prepare(self) -> None:
        try:
            import rensa  # noqa: F401
        except ImportError as error:
            raise OmnimaError(
                'Finding near duplicates needs rensa: pip install "omnima[data]" (or pip install '
                "rensa), or leave the step `near` out."
            ) from error

    def depends_on(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"rensa": version("rensa")}

    def run(self, documents: Iterator[str], counts: Counts, workplace: Path) -> Iterator[str]:
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=workplace) as spool:
            batches = self._spooled(documents, counts, spool)
            parts = [self._batch(texts, counts) for texts in batches]
            started = time.perf_counter()
            dropped = self._duplicates(parts, counts)
            counts.seconds += time.perf_counter() - started
            spool.seek(0)
            for line, is_dropped in zip(spool, dropped):
                if not is_dropped:
                    text: str = json.loads(line)
                    counts.leaves(text)
                    yield text

    def _spooled(
        self, documents: Iterator[str], counts: Counts, spool: IO[str]
    ) -> Iterator[list[str]]:
        """Put documents aside, one a line, and yield them in batches."""

        def aside(text: str) -> str:
            counts.arrives(text)
            spool.write(json.dumps(text, ensure_ascii=False) + "\n")
            return text

        return blocks_of(map(aside, documents), len, _BATCH_BYTES)

    def _batch(self, texts: list[str], counts: Counts) -> tuple[Signatures, npt.NDArray[np.bool_]]:
        started = time.perf_counter()
        result = signatures(texts, self.ngram, self.permutations, self.seed)
        counts.seconds += time.perf_counter() - started
        return result

    def _duplicates(
        self, parts: list[tuple[Signatures, npt.NDArray[np.bool_]]], counts: Counts
    ) -> npt.NDArray[np.bool_]:
        """Whether each document is dropped."""
        if not parts:
            return np.zeros(0, dtype=np.bool_)
        matrix = np.concatenate([part for part, _ in parts])
        has_words = np.concatenate([each for _, each in parts])
        first = earliest(len(matrix), similar_pairs(matrix, has_words, self.threshold))
        dropped = first != np.arange(len(first))
        if many := int(dropped.sum()):
            counts.dropped["near an earlier one"] += many
            counts.found["groups"] += len(np.unique(first[dropped]))
        return np.asarray(dropped)


def signatures(
    texts: list[str], ngram: int, permutations: int, seed: int
) -> tuple[Signatures, npt.NDArray[np.bool_]]:
    """The MinHash of each text's runs of words, and whether it has any word.

    A text of fewer than `ngram` words is one run.
    """
    from rensa import RMinHash

    words = split_words(texts)
    numbers, offsets = runs(words, ngram)
    many = np.diff(words.offsets)
    short = np.flatnonzero((many > 0) & (many < ngram))
    if len(short):
        whole = [
            runs(words._replace(offsets=words.offsets[text : text + 2]), int(many[text]))[0]
            for text in short
        ]
        numbers = np.insert(numbers, offsets[short], np.concatenate(whole))
        added = np.zeros(len(texts), dtype=np.int64)
        added[short] = 1
        offsets = offsets + np.concatenate([[0], np.cumsum(added)])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        numbers, offsets.astype(np.uint64), permutations, seed
    )
    rows = np.asarray(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), permutations)
    return rows, many > 0


def similar_pairs(matrix: Signatures, has_words: npt.NDArray[np.bool_], threshold: float) -> Pairs:
    """Pairs of documents whose signatures agree in at least the share `threshold`.

    In each bucket every document is compared with the one before it and with the first.
    """
    known = np.flatnonzero(has_words)
    found: list[Pairs] = []
    for band in range(0, matrix.shape[1], _BAND_ROWS):
        rows = matrix[known, band : band + _BAND_ROWS].astype(np.uint64)
        keys = np.zeros(len(known), dtype=np.uint64)
        for column in range(_BAND_ROWS):
            keys = mix(keys * np.uint64(31) + rows[:, column] + np.uint64(1))
        order = np.argsort(keys, kind="stable")  # in a bucket earlier documents come first
        same = keys[order[1:]] == keys[order[:-1]]
        places = np.flatnonzero(same) + 1
        if not len(places):
            continue
        begins = np.concatenate([[True], ~same])
        firsts = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        for others in (places - 1, firsts[places]):
            found.append(np.stack([known[order[others]], known[order[places]]], axis=1))
    if not found:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = np.unique(np.concatenate(found), axis=0)
    kept = [
        part[(matrix[part[:, 0]] == matrix[part[:, 1]]).mean(axis=1) >= threshold]
        for part in np.split(pairs, range(_COMPARED, len(pairs), _COMPARED))
    ]
    return np.concatenate(kept)


def earliest(documents: int, pairs: Pairs) -> Pairs:
    """For each document the first one that a chain of pairs connects it with.

    >>> earliest(4, np.array([[0, 2], [2, 3]])).tolist()
    [0, 1, 0, 0]
    """
    parents = list(range(documents))

    def root(each: int) -> int:
        while parents[each] != each:
            parents[each] = parents[parents[each]]
            each = parents[each]
        return each

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(each) for each in range(documents)], dtype=np.int64)
