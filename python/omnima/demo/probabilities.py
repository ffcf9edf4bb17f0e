"""What was written, token by token, as HTML: coloured by probability, with what else was likely."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnima.notebook.probabilities import COLOURS, percent
from omnima.tokenizers.chat_mask import token_bytes
from omnima.tokenizers.shown import token_texts, visible

if TYPE_CHECKING:
    from omnima.server.service import TokenLogprob
    from omnima.tokenizers import Tokenizer

ALTERNATIVES = 5


@dataclass(frozen=True)
class Token:
    """A token as people see it; tokens that are parts of one character are one.

    Attributes
    ----------
    text
        Whole characters.
    probability
        Of all its parts, one after the other.
    alternatives
        (text, probability) of the likeliest at its place, the likeliest first.
    """

    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]


class Tokens:
    """Gathers what an engine tells of tokens until they are whole characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes, self._logprob = b"", 0.0
        self._alternatives: tuple[tuple[str, float], ...] = ()

    def take(self, known: Iterable[TokenLogprob]) -> list[Token]:
        """Take new tokens; return what is whole now."""
        found = []
        for id, logprob, likeliest in known:
            if not self._bytes:
                self._alternatives = self._read(likeliest)
            self._bytes += self._piece(id)
            self._logprob += logprob
            try:
                text = self._bytes.decode()
            except UnicodeDecodeError as error:
                if error.end == len(self._bytes) and "unexpected end" in error.reason:
                    continue  # the rest of the character may come
                text = self._bytes.decode("utf-8", "backslashreplace")
            found.append(self._made(text))
        return found

    def finish(self) -> list[Token]:
        """Return what is left of a character that was never written to its end."""
        if not self._bytes:
            return []
        return [self._made(self._bytes.decode("utf-8", "backslashreplace"))]

    def _made(self, text: str) -> Token:
        made = Token(text, math.exp(min(0.0, self._logprob)), self._alternatives)
        self._bytes, self._logprob = b"", 0.0
        return made

    def _piece(self, id: int) -> bytes:
        described = self._tokenizer.description
        return token_bytes(described, id) if id < len(described.pieces) else b"?"

    def _read(self, likeliest: Sequence[tuple[int, float]]) -> tuple[tuple[str, float], ...]:
        known = len(self._tokenizer.description.pieces)
        return tuple(
            (token_texts(self._tokenizer, [id])[0] if id < known else f"id {id}", math.exp(logprob))
            for id, logprob in likeliest
        )


def level(probability: float) -> int:
    """Which colour a probability has: 0 is sure, 4 is a surprise.

    >>> level(0.9), level(0.1), level(0.0)
    (0, 2, 4)
    """
    sure = (number for number, (least, _) in enumerate(COLOURS) if probability >= least)
    return next(sure, len(COLOURS))


def token_html(token: Token, first: bool = False) -> str:
    """Return a token as an option of a list: by mouse and by key it tells what else was likely."""
    shown = visible(token.text)  # a line ends where it does, before what is indented behind it
    about = [[visible(text).replace("\n", ""), round(p, 5)] for text, p in token.alternatives]
    label = f"{_named(token.text)}, {percent(token.probability)}"
    if about:
        label += "; likeliest: " + ", ".join(
            f"{_named(text)} {percent(p)}" for text, p in token.alternatives
        )
    return (
        f'<span class="token level-{level(token.probability)}" role="option" '
        f'aria-selected="false" tabindex="{0 if first else -1}" aria-label="{_quoted(label)}" '
        f'data-chance="{percent(token.probability)}" data-likeliest="{_quoted(json.dumps(about))}">'
        f"{html.escape(shown)}</span>"
    )


def legend_html() -> str:
    """Return what the colours mean, in words."""
    named = [f"{least:.0%} and more" for least, _ in COLOURS] + [f"below {COLOURS[-1][0]:.0%}"]
    parts = "".join(
        f'<span class="token level-{number}">{html.escape(each)}</span> '
        for number, each in enumerate(named)
    )
    return (
        f'<p class="legend">Probability of each token: {parts}<span class="hint">Point at a token, '
        "or go to the answer with Tab and from token to token with the arrow keys, to see what "
        "else was likely.</span></p>"
    )


def _named(text: str) -> str:
    """A token as a screen reader says it."""
    names = {" ": "space", "\n": "line end", "": "nothing", "\t": "tab"}
    return names.get(text) or "“" + visible(text).replace("\n", "") + "”"


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)
