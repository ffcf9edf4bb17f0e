"""The probability that a model gave to every token of a text, and what it had expected."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from omnima.errors import ConfigError
from omnima.notebook.tokens import read_tokens
from omnima.tokenizers.shown import token_texts, visible

if TYPE_CHECKING:
    from omnima.model import Model

#: From sure to surprising: the least probability of each colour.
COLOURS = ((0.5, "#92c5de"), (0.2, "#d1e5f0"), (0.05, "#f2f2f2"), (0.01, "#fddbc7"))
_SURPRISE = "#f4a582"
_NONE = "#ffffff"
_BOX = "display:inline-block;margin:1px;text-align:center;"
_ABOVE = "display:block;font-size:70%;line-height:1.2;"
_STYLE = "color:#111;white-space:pre;font-family:monospace;border-radius:3px;padding:0 2px;"


@dataclass(frozen=True)
class TokenProbabilities:
    """What a model thought of each token; a notebook shows the text in colour.

    Attributes
    ----------
    ids
        int64 ``[time]``.
    texts
        The text of each token.
    probabilities
        float32 ``[time]``: of each token, after those before it. NaN for the first, which nothing
        stands before.
    alternative_ids, alternative_texts, alternative_probabilities
        ``[time, alternatives]``: the likeliest tokens at each place, the likeliest first. At the
        first place ids are -1, texts empty and probabilities NaN.
    """

    ids: NDArray[np.int64]
    texts: tuple[str, ...]
    probabilities: NDArray[np.float32]
    alternative_ids: NDArray[np.int64]
    alternative_texts: tuple[tuple[str, ...], ...]
    alternative_probabilities: NDArray[np.float32]

    @property
    def loss(self) -> float:
        """The mean cross-entropy of the tokens behind the first, in nats."""
        return float(-np.log(self.probabilities[1:], dtype=np.float64).mean())

    def _repr_html_(self) -> str:
        places = range(len(self.texts))
        spans = "".join(self._span(place) for place in places)
        rows = "".join(self._row(place) for place in places)
        legend = "".join(
            f'<span style="{_STYLE}background:{colour}">{said}</span> '
            for said, colour in _legend()
        )
        return (
            f'<div style="line-height:1.5">{spans}</div><div>probability: {legend}</div>'
            "<details><summary>as a table</summary><table><tr><th>place</th><th>token</th>"
            f"<th>probability</th><th>likeliest</th></tr>{rows}</table></details>"
        )

    def _span(self, place: int) -> str:
        """A token with its probability above it: readable without its colour."""
        text, probability = self.texts[place], float(self.probabilities[place])
        title = "nothing stands before it"
        if not math.isnan(probability):
            title = f"{percent(probability)}; likeliest: {self._alternatives(place)}"
        shown, ends = html.escape(visible(text).replace("\n", "")), "<br>" * text.count("\n")
        return (
            f'<span title="{html.escape(title, quote=True)}" '
            f'style="{_STYLE}{_BOX}background:{_colour(probability)}">'
            f'<small style="{_ABOVE}">{percent(probability) or "&nbsp;"}</small>'
            f"{shown}</span>{ends}"
        )

    def _row(self, place: int) -> str:
        cells = (
            str(place),
            _quoted(self.texts[place]),
            percent(float(self.probabilities[place])),
            self._alternatives(place),
        )
        return "<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in cells) + "</tr>"

    def _alternatives(self, place: int) -> str:
        pairs = zip(self.alternative_texts[place], self.alternative_probabilities[place])
        return ", ".join(f"{_quoted(text)} {percent(float(p))}" for text, p in pairs if text)


def token_probabilities(
    model: Model, text: str | Sequence[int], alternatives: int = 5
) -> TokenProbabilities:
    """Return what a model thinks of a text; see :meth:`omnima.Model.token_probabilities`."""
    most = model.config.vocab_size
    if not 0 <= alternatives <= most:
        raise ConfigError(f"alternatives is {alternatives}, but lies between 0 and {most}.")
    if not model.config.causal:
        raise ConfigError(
            "A model with causal false sees both sides of a token: it does not foretell it."
        )
    ids, texts = read_tokens(model, text)
    with torch.no_grad():
        chances = torch.softmax(model(torch.tensor([ids]))[0].float(), -1).cpu()
    best, best_ids = chances[:-1].topk(alternatives)
    of_tokens = chances[:-1].gather(1, torch.tensor(ids[1:], dtype=torch.int64)[:, None])[:, 0]
    first = torch.full((1, alternatives), math.nan)
    return TokenProbabilities(
        np.array(ids, np.int64),
        tuple(texts),
        torch.cat((torch.full((1,), math.nan), of_tokens)).numpy(),
        torch.cat((torch.full((1, alternatives), -1), best_ids)).numpy(),
        (("",) * alternatives, *(_texts(model, row) for row in best_ids.tolist())),
        torch.cat((first, best)).numpy(),
    )


def _texts(model: Model, ids: list[int]) -> tuple[str, ...]:
    """The text of each; a model may have more ids than its tokenizer."""
    tokenizer = model.tokenizer
    known = 0 if tokenizer is None else len(tokenizer.description.pieces)
    return tuple(
        token_texts(tokenizer, [id])[0] if tokenizer is not None and id < known else f"id {id}"
        for id in ids
    )


def percent(probability: float) -> str:
    """Write a probability for people; nothing for none.

    >>> percent(0.123), percent(0.00001), percent(float("nan"))
    ('12%', '<0.1%', '')
    """
    if math.isnan(probability):
        return ""
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.1%}" if probability < 0.0995 else f"{probability:.0%}"


def _quoted(text: str) -> str:
    return "“" + visible(text).replace("\n", "") + "”"


def _colour(probability: float) -> str:
    if math.isnan(probability):
        return _NONE
    return next((colour for least, colour in COLOURS if probability >= least), _SURPRISE)


def _legend() -> list[tuple[str, str]]:
    return [(f"from {least:.0%}", colour) for least, colour in COLOURS] + [
        (f"below {COLOURS[-1][0]:.0%}", _SURPRISE)
    ]
