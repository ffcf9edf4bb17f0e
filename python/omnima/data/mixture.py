"""Several sources in one stream, by weight, each with its language: what a ``.yaml`` describes.

The order has no chance in it: the next document comes from the source that is furthest behind its
share of the bytes. So every stretch of the stream holds the shares asked for, and the same
description gives the same stream, from any document on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omnima.data.augment import FillInMiddleSource, ShuffledSource
from omnima.data.base import OnError, Piece, Source
from omnima.errors import ConfigError, DataError

STRATEGIES = ("first_exhausted", "all_exhausted")
_KEYS = (
    *("data", "weight", "language", "field", "on_error", "document_break"),
    *("fill_in_middle", "shuffle_sentences"),
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")

Opener = Callable[[Any, str | None, OnError, str | None], Source]


def language_token(language: str) -> str:
    """The special token that stands before documents of a language.

    >>> language_token("fr")
    '<|fr|>'
    """
    return f"<|{language}|>"


def languages_of(tokens: Iterable[str]) -> list[str]:
    """The languages among special tokens.

    >>> languages_of(["<s>", "<|fr|>", "<|fim_middle|>"])
    ['fr']
    """
    inner = [token[2:-2] for token in tokens if token[:2] == "<|" and token[-2:] == "|>"]
    return [each for each in inner if _LANGUAGE.fullmatch(each)]


class LanguageSource(Source):
    """A source whose documents each follow a token that names their language.

    >>> from omnima.data import open_source
    >>> next(LanguageSource(open_source("tinyworld:1KB"), "en").pieces()).tokens
    ('<|en|>',)
    """

    def __init__(self, source: Source, language: str) -> None:
        super().__init__()
        if not _LANGUAGE.fullmatch(language):
            raise ConfigError(
                f"language is {language!r}; expected a code such as en, fr, zh or pt-BR"
            )
        self.source, self.token = source, language_token(language)
        self.repeats = source.repeats

    def pieces(self) -> Iterator[Piece]:
        begins = True
        for piece in self.source.pieces():
            self.skipped = self.source.skipped
            # The token changes what the text's probability is counted over.
            tokens = (self.token, *piece.tokens) if begins else piece.tokens
            yield Piece(piece.text, piece.last, None, tokens)
            begins = piece.last
        self.skipped = self.source.skipped

    def identity(self) -> str:
        return f"language {self.token}\n{self.source.identity()}"

    def files(self) -> list[Path]:
        return self.source.files()

    def size(self) -> int | None:
        return self.source.size()

    def special_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.token, *self.source.special_tokens())))


class WeightedSource(Source):
    """Documents of several sources, each source with a share of the bytes.

    Parameters
    ----------
    parts : list of Source
        What is mixed.
    weights : list of float
        Their shares, in any unit: 3 and 1 are 75% and 25%.
    stopping_strategy : {"first_exhausted", "all_exhausted"}
        End when a source has no document left, so that none is read twice; or go on, smaller
        sources beginning again, until each was read to its end.
    """

    def __init__(
        self,
        parts: list[Source],
        weights: list[float],
        stopping_strategy: str = "first_exhausted",
    ) -> None:
        super().__init__()
        if stopping_strategy not in STRATEGIES:
            raise ConfigError(
                f"stopping_strategy is {stopping_strategy!r}; expected {' or '.join(STRATEGIES)}"
            )
        if len(parts) != len(weights) or not parts:
            raise ConfigError(f"{len(parts)} sources have {len(weights)} weights; give each one")
        for weight in weights:
            if not 0 < weight < float("inf"):
                raise ConfigError(f"a weight is {weight}; expected a number above 0")
        self.parts, self.weights = parts, weights
        self.stopping_strategy = stopping_strategy
        self.repeats = stopping_strategy == "all_exhausted"

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        streams = [part.pieces() for part in self.parts]
        given = [0.0] * len(streams)  # bytes over weight
        skipped: dict[int, int] = {}  # of the sources that were read to their end
        while True:
            turn = min(range(len(streams)), key=given.__getitem__)
            size = 0
            for piece in streams[turn]:
                size += len(piece.text) if piece.text.isascii() else len(piece.text.encode())
                yield piece._replace(log_probability=None)  # a mixture's is not known
                if piece.last:
                    break
            if size:
                given[turn] += size / self.weights[turn]
                continue
            skipped[turn] = self.parts[turn].skipped
            running = [skipped.get(each, part.skipped) for each, part in enumerate(self.parts)]
            self.skipped = sum(running)
            if not self.repeats or len(skipped) == len(streams):
                return
            if not given[turn]:
                raise DataError("a source of the mixture has no document; take it off the list.")
            streams[turn] = self.parts[turn].pieces()

    def identity(self) -> str:
        parts = "\n".join(part.identity() for part in self.parts)
        return f"weighted {self.stopping_strategy} {self.weights}\n{parts}"

    def files(self) -> list[Path]:
        return [path for part in self.parts for path in part.files()]

    def size(self) -> int | None:
        shares = []
        for part, weight in zip(self.parts, self.weights):
            size = part.size()
            if size is None:
                return None
            shares.append(size / weight)
        return int((max if self.repeats else min)(shares) * sum(self.weights))

    def special_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for part in self.parts for each in part.special_tokens()))


def read_mixture(
    description: Any, folder: Path, where: str, opener: Opener, chain: Callable[..., Source]
) -> Source:
    """Open what a mixture's YAML says.

    Parameters
    ----------
    description
        A mapping with ``sources`` (a list of mappings with ``data``, and where wanted ``weight``,
        ``language``, ``field``, ``on_error``, ``document_break``, ``fill_in_middle``,
        ``shuffle_sentences``) and ``stopping_strategy``.
    folder
        What relative paths start from.
    where
        How messages call the description.
    opener, chain
        How one source is opened, and several are read one after the other.
    """
    if not isinstance(description, dict) or not isinstance(description.get("sources"), list):
        raise ConfigError(
            f"{where} describes a mixture: a list under 'sources' is expected, each with 'data'."
        )
    _refuse_unknown(description, ("sources", "stopping_strategy"), where)
    parts, weights = [], []
    for number, entry in enumerate(description["sources"], start=1):
        part, weight = _read_entry(entry, folder, f"{where}, source {number}", opener)
        parts.append(part)
        weights.append(weight)
    if not parts:
        raise ConfigError(f"{where}: the list 'sources' is empty; name at least one.")
    given = [weight for weight in weights if weight is not None]
    if not given:
        if "stopping_strategy" in description:
            raise ConfigError(
                f"{where}: stopping_strategy goes with weights; without them each source is read "
                "once, one after the other."
            )
        return chain(parts)
    if len(given) != len(parts):
        raise ConfigError(f"{where}: {len(given)} of {len(parts)} sources have a weight; give all.")
    try:
        return WeightedSource(parts, given, description.get("stopping_strategy", STRATEGIES[0]))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}.") from error


def _read_entry(
    entry: Any, folder: Path, where: str, opener: Opener
) -> tuple[Source, float | None]:
    if not isinstance(entry, dict) or not entry.get("data"):
        raise ConfigError(f"{where}: a mapping with 'data' is expected, such as data: books/*.txt.")
    _refuse_unknown(entry, _KEYS, where)
    weight = entry.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
        raise ConfigError(f"{where}: weight is {weight!r}; expected a number above 0.")
    given = entry["data"] if isinstance(entry["data"], list) else [entry["data"]]
    specs = [from_folder(str(spec), folder) for spec in given]
    try:
        source = opener(
            specs,
            entry.get("field"),
            entry.get("on_error", "raise"),
            entry.get("document_break"),
        )
        for augmented in (ShuffledSource, FillInMiddleSource):
            if augmented.name in entry:
                source = augmented(source, entry[augmented.name])
        if "language" in entry:
            source = LanguageSource(source, str(entry["language"]))
    except (ConfigError, DataError) as error:
        raise type(error)(f"{where}: {error}") from error
    return source, None if weight is None else float(weight)


def _refuse_unknown(given: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f'{where}: unknown key "{key}". The nearest is "{near}".')


def from_folder(spec: str, folder: Path) -> str:
    """Return a path as read from a folder, where it is relative and leads somewhere from there."""
    path = Path(spec).expanduser()
    if path.is_absolute():
        return str(path)
    beside = folder / path
    exists = beside.exists() or any(folder.glob(spec))
    return str(beside) if exists else spec
