"""Turns of a conversation as HTML. All that people or models wrote is escaped."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

from omnima.demo.probabilities import Token, token_html

_ENDED = {
    "length": "cut off: the answer has as many tokens as it may have",
    "stopped": "stopped by you",
    "failed": "ended by an error",
}

_NAMED = 40  # characters of a message by which its buttons name it


@dataclass
class Turn:
    """One message.

    Attributes
    ----------
    role
        "user" or "assistant".
    text
        What was said.
    who
        The model that said it.
    tokens
        Of an answer.
    ended
        Why an answer ended where it did not end by itself: length, stopped or failed.
    number
        Of a user's message in its conversation; those that failed had one, too.
    """

    role: str
    text: str = ""
    who: str = ""
    tokens: list[Token] = field(default_factory=list)
    ended: str = ""
    number: int = 0
    _begun: str = field(default="", repr=False)
    _count: int = field(default=0, repr=False)
    _drawn: dict[bool, str] = field(default_factory=dict, repr=False)

    def begun(self) -> str:
        """Return its tokens as HTML; each is drawn once, as there are more pictures than tokens."""
        new = self.tokens[self._count :]
        self._begun += "".join(
            token_html(each, self._count + number == 0) for number, each in enumerate(new)
        )
        self._count += len(new)
        return self._begun

    def drawn(self, coloured: bool) -> str:
        """Return a turn that is done as HTML; drawn once."""
        if coloured not in self._drawn:
            self._drawn[coloured] = turn_html(self, coloured)
        return self._drawn[coloured]


def turn_html(turn: Turn, coloured: bool) -> str:
    """Return a turn as HTML."""
    return _head(turn) + _body(turn, coloured) + _foot(turn)


def growing_html(turn: Turn, coloured: bool) -> str:
    """Return an answer that is being written: what is longer begins with what was shorter, so
    that only its end travels to the browser, which closes what is open.
    """
    head = _head(turn).replace("<article ", '<article aria-busy="true" ')
    if coloured and turn.tokens:
        return head + _opened() + turn.begun()
    return head + '<p class="said">' + html.escape(turn.text)


def _head(turn: Turn) -> str:
    who = "You" if turn.role == "user" else turn.who
    return (
        f'<article class="turn {turn.role}" aria-label="{html.escape(who, quote=True)}">'
        f'<h2 class="who">{html.escape(who)}</h2>'
    )


def _body(turn: Turn, coloured: bool) -> str:
    said = html.escape(turn.text)
    if not (coloured and turn.tokens):
        return f'<p class="said">{said}</p>' if said else '<p class="said empty">(nothing)</p>'
    # Whoever listens gets the text in one piece; the tokens are a list beside it.
    return f'<p class="sr-only text">{said}</p>{_opened()}{turn.begun()}</div>'


def _opened() -> str:
    return (
        '<div class="tokens" role="listbox" aria-orientation="horizontal" '
        'aria-label="Tokens of this answer with their probabilities">'
    )


def _foot(turn: Turn) -> str:
    why = _ENDED.get(turn.ended)
    ended = f'<p class="ended">({why})</p>' if why else ""
    return f"{ended}{_acts(turn)}</article>"


def _acts(turn: Turn) -> str:
    """What can be done with a turn, which page.js does; each button names its turn."""
    if turn.role != "user":
        buttons = _act("copy", "Copy", f"Copy the answer of {turn.who}") if turn.text else ""
    else:
        number = f' data-number="{turn.number}"'
        begins = " ".join(turn.text[: 2 * _NAMED].split())[:_NAMED]
        buttons = _act("copy", "Copy", f"Copy your message “{begins}”")
        buttons += _act("edit", "Edit", f"Edit your message “{begins}”", number)
    return f'<div class="acts">{buttons}</div>' if buttons else ""


def _act(kind: str, label: str, name: str, more: str = "") -> str:
    return (
        f'<button type="button" class="act {kind}" aria-label="{html.escape(name, quote=True)}"'
        f"{more}>{label}</button>"
    )
