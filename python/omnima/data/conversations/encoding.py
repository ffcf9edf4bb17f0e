"""From an example to a sample: token ids, and which of them a model is to learn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnima.data.conversations.examples import (
    Completion,
    Conversation,
    Example,
    Judged,
    Messages,
    Pair,
    PlainText,
)
from omnima.errors import ConfigError, DataError
from omnima.tokenizers.chat_mask import token_bytes
from omnima.tokenizers.chat_turns import RewrittenTurnError

if TYPE_CHECKING:
    from omnima.tokenizers import Tokenizer

CUT, DROP = "cut", "drop"


@dataclass(frozen=True)
class Sample:
    """Token ids, and 1 where the id is learned: predicted from those before it."""

    ids: list[int]
    supervised: list[int]
    place: str
    good: bool | None = None  # of answers that people judged

    @property
    def asked(self) -> list[int]:
        """What stands before the first id that is learned."""
        return self.ids[: self.supervised.index(1)]

    @property
    def supervised_tokens(self) -> int:
        """How many ids are learned; the first one has nothing before it."""
        return sum(self.supervised[1:])


class Encoder:
    """Turns examples into samples and counts what had to be changed.

    Parameters
    ----------
    tokenizer
        With a chat template, where the examples are conversations.
    context
        Tokens that a model reads at once; a sample has one more, which is only predicted. None: no
        bound.
    too_long
        What becomes of longer samples: ``"cut"`` at the bound, or ``"drop"``.

    Attributes
    ----------
    cut, dropped
        Samples that were cut, and that were left out as too long.
    unanswered
        Samples that were left out because nothing supervised would be left of them.
    cut_tokens
        Supervised tokens that were lost with what was cut off.
    as_text
        Conversations whose messages hold control tokens, which were encoded as plain text.
    parted
        Conversations that became a sample a turn, as the template rewrites earlier turns.
    alone
        Answers that were left out because the other one of their pair was.
    """

    def __init__(self, tokenizer: Tokenizer, context: int | None, too_long: str = CUT) -> None:
        if too_long not in (CUT, DROP):
            raise ConfigError(f'too_long is {too_long!r}; expected "{CUT}" or "{DROP}"')
        self.tokenizer = tokenizer
        self.context = context
        self.too_long = too_long
        self.cut = self.dropped = self.unanswered = self.cut_tokens = 0
        self.as_text = self.parted = self.alone = 0
        special = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")

    def encode(self, example: Example) -> list[Sample]:
        """Return the samples of an example: one, several where it was parted, none if dropped.

        Raises
        ------
        DataError
            With the place of the example: nothing in it is learned, a turn does not end in an end
            token or its end token is not learned, the begin token stands twice, or a template that
            does not fit.
        """
        try:
            samples = self._samples(example)
            for sample in samples:
                self._check(sample)
        except (DataError, ConfigError) as error:
            raise type(error)(f"{example.place}: {error}") from error
        return [kept for sample in samples if (kept := self._fitted(sample)) is not None]

    def encode_pair(self, example: Example) -> list[Sample]:
        """Return the samples of the better and of the other answer; none where one is dropped.

        Raises
        ------
        DataError
            The example is no pair, or as from :meth:`encode`.
        """
        if not isinstance(example, Pair):
            raise DataError(
                f"{example.place}: no pair of answers: expected chosen and rejected, and prompt or "
                "instruction"
            )
        both = self._answer(example.chosen) + self._answer(example.rejected)
        self.alone += len(both) == 1
        return both if len(both) == 2 else []

    def encode_judged(self, example: Example) -> list[Sample]:
        """Return the sample of a judged answer, or those of a pair: one was liked, one was not.

        Raises
        ------
        DataError
            The example is neither, or as from :meth:`encode`.
        """
        if isinstance(example, Pair):
            answers = [(example.chosen, True), (example.rejected, False)]
        elif isinstance(example, Judged):
            answers = [(example.answer, example.good)]
        else:
            raise DataError(
                f"{example.place}: no answer that people judged: expected prompt, completion and "
                "label (true or false), or pairs of answers (chosen, rejected)"
            )
        return [
            replace(sample, good=good)
            for answer, good in answers
            for sample in self._answer(answer)
        ]

    def encode_any(self, example: Example) -> list[Sample]:
        """Return the samples of an example of any kind."""
        if isinstance(example, Pair):
            return self.encode_pair(example)
        return (self.encode_judged if isinstance(example, Judged) else self.encode)(example)

    def _answer(self, answer: Conversation | Completion) -> list[Sample]:
        if isinstance(answer, Conversation):
            answer = replace(answer, last_turn_only=True)
        return self.encode(answer)

    def _samples(self, example: Example) -> list[Sample]:
        if isinstance(example, Conversation):
            return self._conversation(example)
        if isinstance(example, Completion):
            return [self._completion(example)]
        if isinstance(example, PlainText):
            raise DataError(
                "plain text holds no answers to learn: give conversations, or learn all of it "
                "with objective lm"
            )
        if isinstance(example, Judged):
            raise DataError(
                "an answer with a label is judged, not to be imitated whatever was said of it: "
                "learn what is liked with objective kto, or rename the label"
            )
        raise DataError(
            "a pair of answers (chosen, rejected) is no conversation to imitate: learn what is "
            "preferred with objective dpo, ipo, simpo, orpo or kto"
        )

    def _conversation(self, example: Conversation) -> list[Sample]:
        try:
            return [self._chat(example, example.messages, example.last_turn_only)]
        except RewrittenTurnError:
            self.parted += 1
        turns = [n for n, each in enumerate(example.messages, 1) if each["role"] == "assistant"]
        return [self._chat(example, example.messages[:end], True) for end in turns]

    def _chat(self, example: Conversation, messages: Messages, last_turn_only: bool) -> Sample:
        texts = [each["content"] for each in messages if isinstance(each.get("content"), str)]
        hostile = any(map(self._special.search, texts))
        self.as_text += hostile
        chat = self.tokenizer.encode_chat(
            messages,
            tools=example.tools,
            sanitize_control_tokens=hostile,
            last_turn_only=last_turn_only,
        )
        sample = Sample(chat.ids, chat.assistant_mask, example.place)
        self._check_ends(sample)
        return sample

    def _completion(self, example: Completion) -> Sample:
        tokenizer = self.tokenizer
        if tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, so a model would never stop")
        asked = list(tokenizer.encode(example.prompt, add_bos=tokenizer.bos_id is not None))
        # Encoded together where that begins with the prompt's ids: so is a text that is written on.
        whole = list(
            tokenizer.encode(example.prompt + example.completion, tokenizer.bos_id is not None)
        )
        if whole[: len(asked)] != asked:
            whole = asked + list(tokenizer.encode(example.completion))
        ids = [*whole, tokenizer.eos_id]
        return Sample(ids, [0] * len(asked) + [1] * (len(ids) - len(asked)), example.place)

    def _check(self, sample: Sample) -> None:
        bos = self.tokenizer.bos_id
        if bos is not None and sample.ids[:2] == [bos, bos]:
            raise DataError(
                f"the begin token {self._said(bos)} stands twice at the beginning: the chat "
                "template writes it, and so does the first message, or the template itself"
            )
        if not sample.supervised_tokens:
            raise DataError("no token of it is supervised: there is nothing to learn")

    def _check_ends(self, sample: Sample) -> None:
        """Each turn must end in a control token that is learned, or writing would never end."""
        ids, control = sample.ids, self.tokenizer.control_token_ids()
        for end in _ends_of_runs(sample.supervised):
            last, after = end - 1, end
            while last > 0 and self._blank(ids[last]):
                last -= 1
            if ids[last] in control:
                continue
            while after < len(ids) and self._blank(ids[after]):
                after += 1
            if after < len(ids) and ids[after] in control:
                raise DataError(
                    f"the end of the assistant's turn, {self._said(ids[after])}, is not "
                    "supervised, so a model would never learn to stop: the chat template must "
                    "write it before {% endgeneration %}"
                )
            raise DataError(
                "the chat template ends the assistant's turn with no control token, so a model "
                "would never learn to stop: let it write {{ eos_token }} behind the content"
            )

    def _blank(self, token: int) -> bool:
        return token_bytes(self.tokenizer.description, token).isspace()

    def _said(self, token: int) -> str:
        return self.tokenizer.pieces([token])[0]

    def _fitted(self, sample: Sample) -> Sample | None:
        if self.context is None or len(sample.ids) <= self.context + 1:
            return sample
        most = self.context + 1
        kept = replace(sample, ids=sample.ids[:most], supervised=sample.supervised[:most])
        if self.too_long == DROP:
            self.dropped += 1
            return None
        if not kept.supervised_tokens:
            self.unanswered += 1
            return None
        self.cut += 1
        self.cut_tokens += sample.supervised_tokens - kept.supervised_tokens
        return kept

    def sentences(self) -> list[str]:
        """Say what was changed or left out."""
        said = []
        if self.cut:
            said.append(
                f"{self.cut:,} samples were longer than {self.context} tokens and were cut; "
                f"{self.cut_tokens:,} supervised tokens were lost with that."
            )
        if self.dropped:
            said.append(
                f"{self.dropped:,} samples were longer than {self.context} tokens and were dropped."
            )
        if self.unanswered:
            said.append(
                f"{self.unanswered:,} samples were left out: nothing supervised is within their "
                f"first {self.context} tokens."
            )
        if self.alone:
            said.append(f"{self.alone:,} answers were left out with the other one of their pair.")
        if self.as_text:
            said.append(
                f"{self.as_text:,} conversations hold control tokens in their messages; these were "
                "encoded as plain text."
            )
        if self.parted:
            said.append(
                f"{self.parted:,} conversations became a sample a turn, because the chat template "
                "writes earlier turns otherwise than the last one."
            )
        return said


def _ends_of_runs(marks: Sequence[int]) -> list[int]:
    """Where each run of ones ends: the place behind it."""
    return [
        place + 1
        for place, mark in enumerate(marks)
        if mark and (place + 1 == len(marks) or not marks[place + 1])
    ]
