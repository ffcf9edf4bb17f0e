"""A step that keeps documents in given languages, told by `py3langid` from their characters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from omnima.data.cleaning.step import Counts, TextStep, check_between
from omnima.errors import ConfigError, OmnimaError

_LOOKED_AT = 2000  # characters; more do not change the answer, they only take time


@dataclass(frozen=True)
class Language(TextStep):
    """Keep documents in given languages, and count those of every language."""

    name = "language"
    meaning = "keep documents in given languages"
    keep: tuple[str, ...] = ()
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        if not self.keep:
            raise ConfigError("keep is empty; list codes such as [en, fr].")
        check_between("min_confidence", self.min_confidence, 0, 1)

    def prepare(self) -> None:
        known = identifier().labels
        for code in self.keep:
            if code not in known:
                raise ConfigError(f"language {code!r} is unknown; there are {', '.join(known)}.")

    def depends_on(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"py3langid": version("py3langid")}

    def apply(self, text: str, counts: Counts) -> str | None:
        code, confidence = identify(text)
        counts.found[code] += 1
        if code not in self.keep:
            counts.dropped["another language"] += 1
            return None
        if confidence < self.min_confidence:
            counts.dropped["language unclear"] += 1
            return None
        return text


@lru_cache(maxsize=1)
def identifier() -> Any:
    """The identifier with its model, which the library carries; loaded once."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise OmnimaError(
            'Telling languages needs py3langid: pip install "omnima[data]" (or pip install '
            "py3langid), or leave the step `language` out."
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """The code of a text's language and how sure that is, 0 to 1.

    The middle of a long text is looked at: headings and licences stand at the ends.
    """
    start = max(0, (len(text) - _LOOKED_AT) // 2)
    code, confidence = identifier().classify(text[start : start + _LOOKED_AT])
    return str(code), float(confidence)
