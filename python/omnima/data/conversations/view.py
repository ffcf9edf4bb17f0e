"""What is learned of a sample, token by token: for a terminal, a notebook and programs."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnima.data.conversations.dataset import ConversationData
from omnima.data.conversations.encoding import Encoder, Sample
from omnima.data.conversations.reading import read_examples
from omnima.errors import ConfigError
from omnima.tokenizers.chat_default import ensure_template
from omnima.tokenizers.shown import token_texts, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from omnima.tokenizers import Tokenizer

_LEARNED, _READ = "bold green", "dim"
_STYLE = (
    "display:inline-block;white-space:pre;font-family:monospace;border-radius:3px;margin:1px;"
    "padding:0 2px;"
)
# Told apart without colour, too: what is learned is bold and underlined.
_LOOKS = {
    True: "background:#bfe8c5;color:#0b3d14;font-weight:bold;border-bottom:2px solid #0b3d14;",
    False: "background:#ececec;color:#595959;",
}


@dataclass(frozen=True)
class Token:
    """One token: its id, its text (bytes of a part of a character as ``\\\\xf0``), whether it is
    learned, and the number of its sample in the row.
    """

    id: int
    text: str
    supervised: bool
    segment: int


@dataclass(frozen=True)
class SupervisionView:
    """The tokens of one sample, or of one packed row; a notebook shows it in colour."""

    tokens: tuple[Token, ...]
    places: tuple[str, ...]
    index: int
    count: int

    @property
    def ids(self) -> NDArray[np.int64]:
        """The tokens' ids, int64 ``[tokens]``."""
        return np.array([each.id for each in self.tokens], np.int64)

    @property
    def supervised(self) -> NDArray[np.bool_]:
        """Which of the tokens are learned, bool ``[tokens]``."""
        return np.array([each.supervised for each in self.tokens], np.bool_)

    @property
    def supervised_tokens(self) -> int:
        """How many of the tokens are learned."""
        return sum(each.supervised for each in self.tokens)

    def as_dict(self) -> dict[str, Any]:
        """Return what `omnima inspect --json` prints."""
        return {
            "index": self.index,
            "of": self.count,
            "sources": list(self.places),
            "supervised_tokens": self.supervised_tokens,
            "tokens": [vars(each) for each in self.tokens],
        }

    def title(self) -> str:
        """Say what is shown."""
        shown = f"{len(self.tokens)} tokens, {self.supervised_tokens} of them supervised"
        return f"{self.index} of {self.count}: {shown} ({'; '.join(self.places)})"

    def segments(self) -> Iterator[list[Token]]:
        """Yield the tokens of each sample."""
        for number in range(len(self.places)):
            yield [each for each in self.tokens if each.segment == number]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Colour for a terminal: green is learned, grey is only read."""
        from rich.rule import Rule
        from rich.text import Text

        yield Text(self.title(), style="bold")
        for number, tokens in enumerate(self.segments()):
            if len(self.places) > 1:
                yield Rule(Text(f"segment {number}: {self.places[number]}"), align="left")
            line = Text()
            for each in tokens:
                line.append(visible(each.text), _LEARNED if each.supervised else _READ)
            yield line

    def _repr_html_(self) -> str:
        parts = [f"<div><b>{html.escape(self.title())}</b></div>"]
        for number, tokens in enumerate(self.segments()):
            border = "border-top:2px solid #999;" if number else ""
            spans = "".join(map(_span, tokens))
            parts.append(f'<div style="{border}padding:4px 0;line-height:1.7">{spans}</div>')
        parts.append(
            f'<div><span style="{_STYLE}{_LOOKS[True]}">learned</span> '
            f'<span style="{_STYLE}{_LOOKS[False]}">only read</span></div>'
        )
        return "".join(parts)


def _span(token: Token) -> str:
    said = "learned" if token.supervised else "only read"
    title = html.escape(f"id {token.id}, {said}, segment {token.segment}", quote=True)
    text = html.escape(visible(token.text), quote=True).replace("\n", "<br>")
    return f'<span title="{title}" style="{_STYLE}{_LOOKS[token.supervised]}">{text}</span>'


def inspect(
    model: Any,
    data: Any,
    index: int = 0,
    *,
    context: int | None = None,
    row: int | None = None,
) -> SupervisionView:
    """Show what a model would learn of a sample.

    Parameters
    ----------
    model
        An `omnima.Model` with a tokenizer, or an `omnima.Tokenizer`.
    data
        What :func:`omnima.data.conversations.read_examples` takes.
    index
        Which sample, counted from 0.
    context
        Tokens of a row; samples are cut there. None: no bound.
    row
        Which packed row to show, in the place of one sample; needs a context.

    Raises
    ------
    ConfigError
        There is no such sample or row.
    DataError
        As from :func:`omnima.data.conversations.open_conversations`.

    Examples
    --------
    >>> import json, pathlib
    >>> from omnima import Tokenizer
    >>> written = pathlib.Path("sums.jsonl").write_text(
    ...     json.dumps({"prompt": "2+2=", "completion": "4"}))
    >>> view = inspect(Tokenizer.train(["2+2=4"], "byte"), "sums.jsonl")
    >>> [token.text for token in view.tokens if token.supervised]
    ['4', '</s>']
    """
    tokenizer = getattr(model, "tokenizer", model)
    ensure_template(tokenizer)
    encoder = Encoder(tokenizer, context)
    if row is None:
        return _of_sample(data, encoder, index)
    if context is None:
        raise ConfigError("a packed row has a context: give it, too.")
    samples = [each for example in read_examples(data) for each in encoder.encode_any(example)]
    packed = ConversationData(samples, tokenizer, context, val_fraction=0.0)
    loader = packed.loader("train", 1, context, sequential=True)
    if not 0 <= row < loader.rows_per_epoch:
        raise ConfigError(f"row {row} asked for; there are {loader.rows_per_epoch}, from 0 on.")
    chosen = [samples[number] for number in loader.samples_of_row(row)]
    return _view(tokenizer, chosen, row, loader.rows_per_epoch)


def _of_sample(data: Any, encoder: Encoder, index: int) -> SupervisionView:
    count, found = 0, None
    for example in read_examples(data):
        for sample in encoder.encode_any(example):
            if count == index:
                found = sample
            count += 1
    if found is None:
        raise ConfigError(f"sample {index} asked for; there are {count}, counted from 0.")
    return _view(encoder.tokenizer, [found], index, count)


def _view(tokenizer: Tokenizer, samples: list[Sample], index: int, count: int) -> SupervisionView:
    tokens = tuple(
        Token(id, text, bool(mark) and place > 0, number)
        for number, sample in enumerate(samples)
        for place, (id, text, mark) in enumerate(
            zip(sample.ids, token_texts(tokenizer, sample.ids), sample.supervised)
        )
    )
    return SupervisionView(tokens, tuple(each.place for each in samples), index, count)
