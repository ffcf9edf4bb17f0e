"""Reads a Dockerfile as far as ours need it: stages, instructions, environment and commands."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass
class Stage:
    """One ``FROM`` and what follows it.

    Attributes
    ----------
    base, name
        What it begins from, and what other stages call it.
    steps
        Its instructions in order: (name in capitals, the rest of the line).
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The instructions of one name."""
        return [rest for each, rest in self.steps if each == name]

    def list(self, name: str) -> list[str]:
        """The last instruction of one name, written as a list; []: there is none."""
        found = self.all(name)
        return list(map(str, json.loads(found[-1]))) if found else []

    def probe(self) -> list[str]:
        """The command of the health check; []: there is none."""
        found = self.all("HEALTHCHECK")
        return list(map(str, json.loads(found[-1].partition("CMD ")[2]))) if found else []

    def environment(self, before: dict[str, str]) -> dict[str, str]:
        """What its ENV lines make of an environment."""
        after = dict(before)
        for rest in self.all("ENV"):
            for pair in rest.split():
                name, equals, value = pair.partition("=")
                if not equals:
                    raise ValueError(f"ENV {rest}: write NAME=VALUE")
                after[name] = filled(value, after)
        return after


def filled(text: str, variables: dict[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}``; what has no value becomes nothing.

    >>> filled("/opt/bin:$PATH", {"PATH": "/bin"})
    '/opt/bin:/bin'
    """
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def read_dockerfile(path: Path) -> list[Stage]:
    """Return the stages of a file.

    Raises
    ------
    ValueError
        An instruction stands before the first FROM that is not ARG.
    """
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for name, rest in _instructions(path.read_text(encoding="utf-8")):
        if name == "FROM":
            words = filled(rest, arguments).split()
            stages.append(Stage(words[0], words[2] if len(words) > 2 else ""))
        elif stages:
            stages[-1].steps.append((name, rest))
        elif name == "ARG":
            given, _, value = rest.partition("=")
            arguments[given] = value
        else:
            raise ValueError(f"{path}: {name} stands before the first FROM")
    return stages


def _instructions(text: str) -> list[tuple[str, str]]:
    """Lines that end in a backslash go on in the next one; lines of comment count for nothing."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        name, _, rest = line.strip().partition(" ")
        found.append((name.upper(), " ".join(rest.split())))
    return found
