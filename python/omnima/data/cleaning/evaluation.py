"""A step that drops documents which hold text of evaluations: overlap in runs of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from omnima.data.cleaning.step import Counts, TextStep, check_between
from omnima.data.cleaning.words import Numbers, runs, split_words
from omnima.errors import ConfigError


@dataclass(frozen=True)
class Evaluation(TextStep):
    """Drop documents that share a run of `ngram` words with given files.

    Thirteen words are what Brown et al. 2020 (GPT-3, appendix C) take. Evaluation texts of fewer
    words cannot be recognised and are counted as "too short to match".
    """

    name = "evaluation"
    meaning = "drop documents that share a run of words with the texts of an evaluation"
    files: tuple[str, ...] = ()
    field: str | None = None
    ngram: int = 13
    min_matches: int = 1

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("files is empty; name the evaluation's files.")
        check_between("ngram", self.ngram, 3, 50)
        check_between("min_matches", self.min_matches, 1)
        object.__setattr__(self, "_known", None)
        object.__setattr__(self, "_short", 0)

    def prepare(self) -> None:
        if self._known is not None:  # type: ignore[attr-defined]
            return
        numbers: list[Numbers] = []
        short = 0
        for text in self._source().documents():
            here, _ = runs(split_words([text]), self.ngram)
            short += not len(here)
            numbers.append(here)
        object.__setattr__(self, "_known", np.unique(np.concatenate(numbers)))
        object.__setattr__(self, "_short", short)

    def _source(self) -> Any:
        from omnima.data.sources import open_source

        return open_source(list(self.files), self.field)

    def depends_on(self) -> dict[str, str]:
        return {"evaluation texts": self._source().fingerprint()}

    def apply(self, text: str, counts: Counts) -> str | None:
        known: Numbers = self._known  # type: ignore[attr-defined]
        if self._short:  # type: ignore[attr-defined]
            counts.found["evaluation texts too short to match"] = self._short  # type: ignore[attr-defined]
        numbers, _ = runs(split_words([text]), self.ngram)
        if not len(numbers) or not len(known):
            return text
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        matches = int((known[places] == numbers).sum())
        if matches < self.min_matches:
            return text
        counts.dropped["evaluation text"] += 1
        counts.found["matching runs"] += matches
        return None
