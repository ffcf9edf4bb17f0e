"""Personal data by pattern: addresses, numbers of phones, cards and accounts, each verified."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from omnima.data.cleaning.step import Counts, TextStep
from omnima.errors import ConfigError


def _always(_: str) -> bool:
    return True


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def _card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _iban(found: str) -> bool:
    """ISO 7064 MOD 97-10, with the country and check digits moved to the end."""
    plain = found.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _public_ip(found: str) -> bool:
    """Addresses of private networks, of the machine itself and for documents are nobody's."""
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:
        return False


def _phone(found: str) -> bool:
    return 8 <= len(re.sub(r"\D", "", found)) <= 15


@dataclass(frozen=True)
class _Kind:
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]
    needs: re.Pattern[str]  # cheap to search; most texts have no match and are done


# In this order: what a later pattern would take a part of goes first.
KINDS = {
    "email": _Kind(
        re.compile(
            r"(?<![\w.+-])[A-Za-z0-9_][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"
        ),
        _always,
        re.compile("@"),
    ),
    "iban": _Kind(
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _iban,
        re.compile(r"\b[A-Z]{2}\d\d"),
    ),
    "card": _Kind(
        re.compile(r"(?<![\d.-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\d.-]?\d)"),
        _card,
        re.compile(r"[3-6]\d{3}[ -]?\d"),
    ),
    "ip": _Kind(
        re.compile(
            r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4})"
            r"(?![\w:]|\.\d)"
        ),
        _public_ip,
        re.compile(r"\d\.\d|[0-9A-Fa-f]:[0-9A-Fa-f:]"),
    ),
    "phone": _Kind(
        re.compile(
            r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,5}"
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]|\.\d)"
        ),
        _phone,
        re.compile(r"\+\d|\d\) ?\d|\d{3}[.-]\d{3}"),
    ),
}


@dataclass(frozen=True)
class Personal(TextStep):
    """Replace personal data by what it was, such as ``<EMAIL>``, or drop the document."""

    name = "personal"
    meaning = "replace e-mail, IP, card, account and phone numbers, or drop their documents"
    kinds: tuple[str, ...] = tuple(KINDS)
    action: str = "replace"

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"kind {kind!r} is unknown; there are {', '.join(KINDS)}.")
        if self.action not in ("replace", "drop"):
            raise ConfigError(f"action is {self.action!r}; expected replace or drop.")

    def apply(self, text: str, counts: Counts) -> str | None:
        met = False
        for name, kind in KINDS.items():
            if name not in self.kinds or not kind.needs.search(text):
                continue
            text, many = _replace(text, name, kind)
            if many:
                counts.found[name] += many
                met = True
        if met and self.action == "drop":
            counts.dropped["personal data"] += 1
            return None
        return text


def _replace(text: str, name: str, kind: _Kind) -> tuple[str, int]:
    many = 0

    def mark(match: re.Match[str]) -> str:
        nonlocal many
        if not kind.holds(match[0]):
            return match[0]
        many += 1
        return f"<{name.upper()}>"

    return kind.pattern.sub(mark, text), many
