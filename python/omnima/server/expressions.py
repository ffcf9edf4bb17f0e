"""How large a regular expression is when its repetitions are written out."""

from __future__ import annotations

import re

_TIMES = re.compile(r"\{(\d+)?(,)?(\d+)?\}")


def written_out(pattern: str) -> int:
    """Return about how many characters a pattern stands for, with its repetitions written out.

    >>> written_out("abc"), written_out("(a{10}b){10}"), written_out("[a-z]{3,8}")
    (3, 110, 8)
    """
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
            sizes[-1] += last
        elif each == "{" and (found := _TIMES.match(pattern, at - 1)):
            most = max(int(number) for number in (found[1] or "1", found[3] or "1"))
            sizes[-1] += last * (max(most, 1) - 1)
            last *= max(most, 1)
            at = found.end()
        elif each not in "*+?|":
            if each == "[":
                at = _class_end(pattern, at)
            elif each == "\\":
                at += 1
            last = 1
            sizes[-1] += 1
    return sum(sizes)


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
