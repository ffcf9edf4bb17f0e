"""TinyWorld: an endless corpus of small stories whose every probability is known exactly.

A document is the visible record of a series of choices, each made with a known probability, and
no two series give the same text. So the probability of a document is the product of those of its
choices, and no model whatever can, in expectation, spend fewer nats on it.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from omnima.data.tinyworld_lexicon import FULL, Lexicon
from omnima.data.tinyworld_questions import MOST_QUESTIONS, MOST_SUMS, ask_questions, do_sums
from omnima.data.tinyworld_stories import Chooser, Say, tell_story
from omnima.errors import ConfigError, DataError

T = TypeVar("T")

GRAMMAR_VERSION = 2  # raised whenever the same seed would give another text
_LOG = tuple(math.log(n) if n else 0.0 for n in range(257))


class _Dice:
    """Draws the choices at random and adds up their log-probability."""

    __slots__ = ("log_probability", "random")

    def __init__(self, seed: int) -> None:
        self.random: Callable[[], float] = random.Random(seed).random
        self.log_probability = 0.0

    def choose(self, options: Sequence[T]) -> T:
        count = len(options)
        self.log_probability -= _LOG[count]
        return options[int(self.random() * count)]

    def chance(self, wins: int, of: int) -> bool:
        won = self.random() * of < wins
        self.log_probability += _LOG[wins if won else of - wins] - _LOG[of]
        return won


class _Mismatch(Exception):
    """The guessed choices do not lead to the text."""


class _Walk:
    """Replays a script of choices and extends it with first options: a depth-first search."""

    def __init__(self, text: str | None) -> None:
        self.text = text  # None: every document is wanted
        self.script: list[int] = []
        self.sizes: list[int] = []

    def start(self) -> None:
        self.step = 0
        self.position = 0
        self.log_probability = 0.0
        self.said: list[str] = []

    def _index(self, count: int) -> int:
        if self.step == len(self.script):
            self.script.append(0)
            self.sizes.append(count)
        self.step += 1
        return self.script[self.step - 1]

    def choose(self, options: Sequence[T]) -> T:
        self.log_probability -= _LOG[len(options)]
        return options[self._index(len(options))]

    def chance(self, wins: int, of: int) -> bool:
        won = self._index(2) == 0
        self.log_probability += _LOG[wins if won else of - wins] - _LOG[of]
        return won

    def say(self, piece: str) -> None:
        if self.text is None:
            self.said.append(piece)
        elif not self.text.startswith(piece, self.position):
            raise _Mismatch
        self.position += len(piece)

    def advance(self) -> bool:
        """Go to the next script in order; False when there is none left."""
        del self.script[self.step :], self.sizes[self.step :]
        while self.script and self.script[-1] + 1 == self.sizes[-1]:
            self.script.pop()
            self.sizes.pop()
        if self.script:
            self.script[-1] += 1
        return bool(self.script)


class TinyWorld:
    """A seeded, endless stream of documents with their exact log-probabilities.

    Parameters
    ----------
    seed : int
        The same seed gives the same documents on every machine and Python version.
    lexicon : Lexicon
        The words; a smaller lexicon makes a smaller world (tests list one whole).
    questions, sums : int
        The most questions about a story and the most lines of an arithmetic document.

    Examples
    --------
    >>> text, log_probability = next(TinyWorld(seed=1).documents())
    >>> math.isclose(TinyWorld().log_probability(text), log_probability)
    True
    """

    def __init__(
        self,
        seed: int = 0,
        lexicon: Lexicon = FULL,
        questions: int = MOST_QUESTIONS,
        sums: int = MOST_SUMS,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"TinyWorld's seed is {seed}; give a whole number from 0 up")
        self.seed = seed
        self.lexicon = lexicon
        self.questions = questions
        self.sums = sums

    def _document(self, draw: Chooser, say: Say) -> None:
        if draw.chance(1, 8):
            do_sums(draw, say, self.lexicon, self.sums)
            return
        facts = tell_story(draw, say, self.lexicon)
        if draw.chance(1, 2):
            ask_questions(draw, say, facts, self.questions)

    def documents(
        self, *, count: int | None = None, size: int | None = None
    ) -> Iterator[tuple[str, float]]:
        """Yield (text, natural logarithm of its probability), independent of each other.

        Parameters
        ----------
        count, size : int, optional
            Stop after so many documents, or with the first that makes it so many bytes in all.
        """
        dice = _Dice(self.seed)
        pieces: list[str] = []
        say = pieces.append
        made = written = 0
        while (count is None or made < count) and (size is None or written < size):
            dice.log_probability = 0.0
            self._document(dice, say)
            text = "".join(pieces)
            pieces.clear()
            made += 1
            written += len(text)  # TinyWorld is plain ASCII: a character is a byte
            yield text, dice.log_probability

    def derivations(self, text: str | None = None) -> Iterator[tuple[str, float]]:
        """Yield every way in which the grammar makes `text` (or any document), exhaustively."""
        walk = _Walk(text)
        while True:
            walk.start()
            if self._spells(walk):
                if text is None:
                    yield "".join(walk.said), walk.log_probability
                elif walk.position == len(text):
                    yield text, walk.log_probability
            if not walk.advance():
                return

    def _spells(self, walk: _Walk) -> bool:
        """Say a document by a walk; False where it leaves the text that is looked for."""
        try:
            self._document(walk, walk.say)
        except _Mismatch:
            return False
        return True

    def log_probability(self, text: str) -> float:
        """Natural logarithm of the probability that a document is `text`.

        Raises
        ------
        DataError
            If the grammar cannot make `text`, as it stands, at all.
        """
        for _, log_probability in self.derivations(text):
            return log_probability
        raise DataError(
            f"TinyWorld never says this document ({text[:60]!r}…): its probability is 0. "
            "Give a whole document, exactly as documents() yields it."
        )

    def fingerprint(self) -> str:
        """A sha256 of everything that the documents depend on."""
        parts = (GRAMMAR_VERSION, self.seed, self.lexicon, self.questions, self.sums)
        return hashlib.sha256(repr(parts).encode()).hexdigest()
