"""Greedy answers to a few held-out samples, beside those that the data gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from omnima.data.tokens import TokenData

if TYPE_CHECKING:
    from omnima.data.conversations.dataset import ConversationData
    from omnima.model import Model
    from omnima.tokenizers import Tokenizer

_SHORT = 256  # tokens that are read at once; longer questions come after shorter ones
_LOOKED_AT = 20  # texts for one that is taken: many begin alike
_BEGINNING = 32  # tokens of a text that are read, where it is longer than that


@dataclasses.dataclass(frozen=True)
class Question:
    """The ids of a held-out sample that are read, and those of the answer in the data."""

    asked: list[int]
    answer: list[int]


def questions_of(data: Any, count: int, context: int) -> list[Question]:
    """Return so many held-out samples at most, always the same: those that leave room to answer.

    Of a conversation its first answer that is learned, of a pair the better one, of judged answers
    those that were liked; of a text how it goes on behind its beginning.
    """
    found = _of_texts(data, count) if isinstance(data, TokenData) else _of_samples(data)
    rooms = [each for each in found if 0 < len(each.asked) < context]
    different = list({tuple(each.asked): each for each in reversed(rooms)}.values())[::-1]
    return sorted(different, key=lambda each: len(each.asked) > _SHORT)[:count]


def _of_samples(data: ConversationData) -> list[Question]:
    found = []
    for each in data.samples["val"][:: data.rows_each]:
        first = len(each.asked)
        end = next((n for n in range(first, len(each.ids)) if not each.supervised[n]), None)
        if each.good is not False:
            found.append(Question(each.asked, each.ids[first:end]))
    return found


def _of_texts(data: TokenData, count: int) -> list[Question]:
    ends = data.document_ends("val")
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
    long_enough = np.flatnonzero(ends - starts >= 4)[: _LOOKED_AT * count]
    ids, found = data.tokens("val"), []
    for start, end in zip(starts[long_enough].tolist(), ends[long_enough].tolist()):
        cut = start + min(_BEGINNING, (end - start) // 2)
        found.append(
            Question([data.start_id, *ids[start:cut].tolist()], ids[cut:end].tolist())
        )  # behind the token that begins a document, as in training
    return found


def answers_of(
    model: Model, tokenizer: Tokenizer, questions: list[Question], most: int
) -> list[str]:
    """Let the model answer with its likeliest tokens, `most` at the most."""
    from omnima.generation import generate

    control = set() if tokenizer.chat_template is None else tokenizer.control_token_ids()
    ends = {next((i for i in reversed(each.answer) if i in control), None) for each in questions}
    written = generate(
        model,
        tokenizer,
        [each.asked for each in questions],
        max_new_tokens=most,
        temperature=0.0,
        stop_ids=sorted(each for each in ends if each is not None),
    )
    return [each.text for each in written]


def texts_of(tokenizer: Tokenizer, question: Question, most: int) -> tuple[str, str]:
    """Return what was asked, as the model reads it, and the data's answer, `most` tokens of it."""
    asked = tokenizer.decode(question.asked, skip_special=False)
    answer = tokenizer.decode(question.answer[:most], after=question.asked)
    return asked, answer + ("…" if len(question.answer) > most else "")
