"""How large a regular expression is when its repetitions are written out."""

from __future__ import annotations

import re

_TIMES = re.compile(r"\{([0-9]*)(?:,([0-9]*))?\}")
_DIGITS = 9  # of a number that is read; a longer one is more than any bound


def written_out(pattern: str, most: int = 10**_DIGITS) -> int:
    """Return about how many characters a pattern stands for, with its repetitions written out.

    The work is linear in the pattern's length: numbers stay small, as what is beyond `most` is only
    known to be so.

    Parameters
    ----------
    pattern
        A regular expression.
    most
        All that is larger is ``most + 1``.

    >>> written_out("abc"), written_out("(a{10}b){10}"), written_out("[a-z]{3,8}")
    (3, 110, 8)
    >>> written_out("a{9}{9}{9}{9}", most=100)
    101
    """
    beyond = most + 1
    sizes = [0]  # of the groups that are open, the outermost first
    last = 0  # of what a repetition would repeat
    at = 0
    while at < len(pattern):
        each = pattern[at]
        at += 1
        if each == "(":
            sizes.append(0)
            last = 0
        elif each == ")":
            last = sizes.pop() if len(sizes) > 1 else 0
            sizes[-1] = min(sizes[-1] + last, beyond)
        elif each == "{" and (found := _TIMES.match(pattern, at - 1)):
            times = max(_number(found[1]), _number(found[2]), 1)
            sizes[-1] = min(sizes[-1] + last * (times - 1), beyond)
            last = min(last * times, beyond)
            at = found.end()
        elif each not in "*+?|":
            if each == "[":
                at = _class_end(pattern, at)
            elif each == "\\":
                at += 1
            last = 1
            sizes[-1] += 1
    return min(sum(sizes), beyond)


def _number(digits: str | None) -> int:
    """A count of repetitions; of so many digits that none is as large: a very large one."""
    held = (digits or "").lstrip("0")
    return int(held or "0") if len(held) <= _DIGITS else 10**_DIGITS


def _class_end(pattern: str, at: int) -> int:
    """The place behind a class of characters whose inside begins at `at`."""
    depth, first = 1, at
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
        elif pattern[at] == "]" and at > first:
            depth -= 1
        at += 1
    return at
