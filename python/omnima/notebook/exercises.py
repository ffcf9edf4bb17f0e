"""Exercises whose answers are checked, and told what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class WrongAnswer(AssertionError):
    """An answer that is not right; says what is wrong with it."""


def check(exercise: str, answer: Any, wrong: Callable[[Any], str | None]) -> None:
    """Look at an answer, and say whether it is right.

    Parameters
    ----------
    exercise
        Its name.
    answer
        What the learner put in the place of ``...``; while that stands there, nothing is checked.
    wrong
        Says what is wrong with an answer; None or an empty text where nothing is.

    Raises
    ------
    WrongAnswer
        With what is wrong.

    Examples
    --------
    >>> check("Sums", 4, lambda answer: None if answer == 4 else "2 + 2 is another number.")
    Sums: right.
    >>> check("Sums", ..., lambda answer: None)
    Sums: not answered yet. Put your answer in the place of ... and run the cell again.
    """
    if answer is ...:
        print(
            f"{exercise}: not answered yet. Put your answer in the place of ... and run the cell "
            "again."
        )
        return
    try:
        said = wrong(answer)
    except Exception as error:
        raise WrongAnswer(
            f"{exercise}: the answer {answer!r:.100} could not be looked at: {error}"
        ) from error
    if said:
        raise WrongAnswer(f"{exercise}: {said}")
    print(f"{exercise}: right.")
