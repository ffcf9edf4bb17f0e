"""TinyWorld's questions about a story (the story settles every answer) and its sums."""

from __future__ import annotations

from omnima.data.tinyworld_lexicon import Lexicon, Name
from omnima.data.tinyworld_stories import Chooser, Say

MOST_QUESTIONS = 3
FEWEST_SUMS, MOST_SUMS = 3, 8


def ask_questions(draw: Chooser, say: Say, facts: dict[str, str], most: int) -> None:
    """Say one to `most` different questions and their answers."""
    left = list(facts)
    for asked in range(1, most + 1):
        question = draw.choose(left)
        say(f"\nQuestion: {question}\nAnswer: {facts[question]}.")
        left.remove(question)
        if not left or (asked < most and draw.chance(1, 2)):
            break


def _plus(draw: Chooser, say: Say, lexicon: Lexicon) -> None:
    numbers = range(lexicon.largest + 1)
    left = draw.choose(numbers)
    say(f"{left} + ")
    right = draw.choose(numbers)
    say(f"{right} = {left + right}\n")


def _minus(draw: Chooser, say: Say, lexicon: Lexicon) -> None:
    left = draw.choose(range(lexicon.largest + 1))
    say(f"{left} - ")
    right = draw.choose(range(left + 1))
    say(f"{right} = {left - right}\n")


def _times(draw: Chooser, say: Say, lexicon: Lexicon) -> None:
    numbers = range(lexicon.largest // 2 + 1)
    left = draw.choose(numbers)
    say(f"{left} x ")
    right = draw.choose(numbers)
    say(f"{right} = {left * right}\n")


def _apples(draw: Chooser, say: Say, lexicon: Lexicon) -> None:
    _, names = draw.choose(lexicon.kinds[:2])
    name: Name = draw.choose(names)
    had = draw.choose(range(2, lexicon.largest // 2 + 3))
    say(f"{name.text} had {had} ")
    fruit = draw.choose(lexicon.fruits)
    say(f"{fruit} and ")
    if draw.chance(1, 2):
        more = draw.choose(range(2, lexicon.largest // 2 + 3))
        say(f"found {more} more. Now {name.gender.he} has {had + more}.\n")
    else:
        less = draw.choose(range(1, had))
        say(f"lost {less}. Now {name.gender.he} has {had - less}.\n")


_SUMS = (_plus, _minus, _times, _apples)


def do_sums(draw: Chooser, say: Say, lexicon: Lexicon, most: int = MOST_SUMS) -> None:
    """Say some lines of arithmetic, all of them right."""
    for done in range(1, most + 1):
        draw.choose(_SUMS)(draw, say, lexicon)
        if FEWEST_SUMS <= done < most and draw.chance(1, 4):
            break
