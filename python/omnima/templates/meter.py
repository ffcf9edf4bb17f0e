"""What a chat template may do: every step is counted, and growth is weighed before it happens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from omnima.errors import DataError

#: Units of work (about a character each) that a template has, beside those for its inputs.
BASE_WORK = 32_000_000
WORK_PER_INPUT = 64
# What an entry of a list costs, a turn of a loop, and each expression in it.
_ITEM, STEP, EXPRESSION = 16, 64, 32
_DEEPEST = 100
# Filters and tests that look at a value from outside, at its entries, or at all that is in it; what
# is named nowhere does the last. Then those whose result can be as long as the product of what they
# take.
_OUTSIDE = frozenset(
    "length count first last default d defined undefined string mapping iterable sequence none"
    " number integer float boolean true false sameas callable escaped get".split()
)
_ENTRIES = frozenset(
    "map select selectattr reject rejectattr list reverse items keys values slice".split()
)
_PRODUCTS = frozenset(
    "batch center expandtabs indent join generate_lorem_ipsum ljust rjust to_bytes translate"
    " wordwrap zfill".split()
)
_WIDE = re.compile(r"\d{4}|%[^a-zA-Z%]*\*|:[^}]*\{")
_SCALARS = (bool, float, type(None))
#: What messages and templates hold, as against macros, loops and the like.
PLAIN = (str, bytes, int, float, Mapping, Sequence, Set)


class Meter:
    """The work of one rendering, and how much is left of it.

    Every value that a template makes is weighed as the tree that it is, so that what is done
    with it later (printed, compared, searched) is no more work than was counted.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._weights: dict[int, tuple[Any, int, int]] = {}  # keeps the values, so ids stay theirs
        self.left = 1 << 62
        self.left = BASE_WORK + WORK_PER_INPUT * self.weight(inputs)

    def charge(self, work: int) -> None:
        """Count work; DataError when none is left."""
        self.left -= work
        if self.left < 0:
            raise DataError(
                "it does too much work (loops, or texts that grow); a template for chats needs"
                " far less"
            )

    def weight(self, value: Any) -> int:
        """Return about how many characters a value has, with all that it holds."""
        return self._weigh(value)[0]

    def _weigh(self, value: Any) -> tuple[int, int]:
        """Weight and depth of a value."""
        if isinstance(value, (str, bytes)):
            return len(value) + 1, 0
        if isinstance(value, _SCALARS):
            return 1, 0
        if isinstance(value, int):
            return 1 + value.bit_length() // 3, 0
        if isinstance(value, Mapping):
            parts: Iterable[Any] = (part for pair in value.items() for part in pair)
        elif isinstance(value, (Sequence, Set)) and not isinstance(value, range):
            parts = value
        else:
            return 1, 0
        known = self._weights.get(id(value))
        if known is not None:
            return known[1], known[2]
        total, deepest = _ITEM, 0
        for part in parts:
            weight, below = self._weigh(part)
            total += weight + _ITEM
            deepest = max(deepest, below)
            if total > self.left:
                self.charge(total)
        if deepest >= _DEEPEST:
            raise DataError(f"it nests values deeper than {_DEEPEST}")
        self._weights[id(value)] = (value, total, deepest + 1)
        return total, deepest + 1

    def before(self, name: str, value: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Count the work of a method, a filter or a test that is about to be called."""
        given = [*args, *named.values()]
        if name in _OUTSIDE:
            return self.charge(1)
        if name in _ENTRIES:
            entries = len(value) if hasattr(value, "__len__") else 1
            return self.charge(_ITEM * (1 + entries + len(given)))
        weight, depth = self._weigh(value)
        self.charge(weight + sum(self.weight(each) for each in given))
        amount = sum(self._amount(each) for each in given)
        if name in ("format", "format_map"):
            self.formatted(value, given)
        elif name == "replace":
            self._replaced(value, args)
        elif name in ("tojson", "pprint"):  # a line an entry, as far in as it is deep
            self.charge(weight // _ITEM * depth * max(amount, 4))
        elif name == "sum":  # anything but numbers is copied once for each of the entries
            start = named.get("start", args[1] if len(args) > 1 else 0)
            self.charge(0 if isinstance(start, (int, float)) else weight * weight)
        elif name == "round":
            self.charge(amount * amount)
        elif name in _PRODUCTS:
            self.charge(weight * amount)

    def _amount(self, value: Any) -> int:
        return abs(value) if isinstance(value, int) else self.weight(value)

    def formatted(self, form: Any, given: Any) -> None:
        """Count the work of putting values into a form, which may name each many times."""
        if isinstance(form, (str, bytes)):
            text = form if isinstance(form, str) else form.decode("latin-1")
            if _WIDE.search(text):
                raise DataError("it formats to a width of its own, which is not allowed")
            self.charge((text.count("%") + text.count("{")) * self.weight(given))

    def _replaced(self, value: Any, args: Sequence[Any]) -> None:
        if isinstance(value, str) and len(args) > 1 and isinstance(args[0], str):
            self.charge((value.count(args[0]) + 1) * self.weight(args[1]))

    def made(self, value: Any) -> Any:
        """Count a value that was made, and return it; what is made lazily is counted then."""
        if isinstance(value, Iterator):
            return self._counted(value)
        self.charge(1 if id(value) in self._weights else self.weight(value))
        return value

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.charge(STEP + self.weight(item))
            yield item

    def operation(self, operator: str, left: Any, right: Any) -> None:
        """Count the work of left operator right."""
        a, b = self.weight(left), self.weight(right)
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and not numbers:
            self.charge(self._times(left, b) if isinstance(left, int) else self._times(right, a))
        elif operator == "**" and numbers:
            self.charge(a * a * max(int(right), 1) * max(int(right), 1))
        elif operator == "%" and isinstance(left, (str, bytes)):
            self.formatted(left, right)
            self.charge(a + b)
        else:
            self.charge(a * b if numbers else a + b)

    @staticmethod
    def _times(count: Any, weight: int) -> int:
        return max(count, 1) * weight if isinstance(count, int) else weight
