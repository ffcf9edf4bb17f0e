"""Steps on characters: Unicode normal forms and control characters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, cast

from omnima.data.cleaning.step import Counts, TextStep
from omnima.errors import ConfigError

_FORMS = ("NFC", "NFKC", "NFD", "NFKD")
_LINE_END = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# C0 and C1 controls but tab and line feed, soft hyphen, zero-width space, direction marks and
# overrides, word joiner, byte order mark, interlinear marks. Joiners (U+200C, U+200D) stay:
# Persian, Indic scripts and emoji need them.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e"
    "\u2060\u2066-\u2069\ufeff\ufff9-\ufffb]"
)


@dataclass(frozen=True)
class Unicode(TextStep):
    """Write each character in one way only."""

    name = "unicode"
    meaning = "one way to write each character: NFC, or NFKC, which also unfolds ligatures"
    form: str = "NFC"

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise ConfigError(f"form is {self.form!r}; expected one of {', '.join(_FORMS)}.")

    def apply(self, text: str, counts: Counts) -> str | None:
        form = cast(Literal["NFC", "NFKC", "NFD", "NFKD"], self.form)
        return text if text.isascii() else unicodedata.normalize(form, text)


@dataclass(frozen=True)
class Control(TextStep):
    """Take out characters that nobody sees; every line ends with a line feed."""

    name = "control"
    meaning = "no control, zero-width and direction characters; line ends are line feeds"

    def apply(self, text: str, counts: Counts) -> str | None:
        text, ends = _LINE_END.subn("\n", text)
        text, removed = _CONTROL.subn("", text)
        if ends:
            counts.found["line ends"] += ends
        if removed:
            counts.found["control characters"] += removed
        return text
