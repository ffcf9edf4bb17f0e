"""What a measurement is asked for: tasks, precisions, formats of weights and peers, by name."""

from __future__ import annotations

from collections.abc import Sequence

from omnima.benchmarking.formats import FORMATS
from omnima.benchmarking.rounds import OURS
from omnima.benchmarking.systems import TUNING, WRITING, systems_of
from omnima.errors import ConfigError

TASKS = ("train", "evaluate", "tokenize")
PRECISIONS = ("bf16", "fp32")
ACTIVATIONS = ("float32", "bf16", "int8")
CACHES = ("fp32", "bf16", "int8")


def check_precisions(given: str | Sequence[str]) -> list[str]:
    """Return the precisions that are asked for; ConfigError for an unknown one.

    >>> check_precisions("fp32, bf16")
    ['fp32', 'bf16']
    """
    return chosen(given, PRECISIONS, "precision")


def check_formats(given: str | Sequence[str]) -> list[str]:
    """Return the formats of weights that are asked for; ConfigError for an unknown one.

    >>> check_formats(["f32", "int4", "f32"])
    ['f32', 'int4']
    """
    return chosen(given, FORMATS, "format")


def check_activations(given: str) -> str:
    """Return what matrices of few bits are multiplied with; ConfigError for an unknown kind.

    >>> check_activations("int8")
    'int8'
    """
    if given not in ACTIVATIONS:
        raise ConfigError(f'activations is "{given}"; the choices are {", ".join(ACTIVATIONS)}.')
    return given


def check_cache(given: str) -> str:
    """Return the number format of keys and values; ConfigError for an unknown one.

    >>> check_cache("bf16")
    'bf16'
    """
    if given not in CACHES:
        raise ConfigError(f'cache_precision is "{given}"; the choices are {", ".join(CACHES)}.')
    return given


def check_peers(task: str, peers: str | Sequence[str] | None) -> list[str]:
    """Return the names of the peers that are asked for, all when None; never our own.

    >>> check_peers("train", "none")
    []
    """
    if task not in (tasks := (*TASKS, *TUNING, *WRITING, "quantize")):
        raise ConfigError(f'Unknown task "{task}"; the tasks are {", ".join(tasks)}.')
    known = [name for name in systems_of(task) if name != OURS]
    if peers is None:
        return known
    for name in (names := [name for name in _names(peers) if name not in ("", "none", OURS)]):
        if name not in known:
            raise ConfigError(
                f'Unknown peer "{name}" for {task}; the peers are {", ".join(known)}, or none.'
            )
    return names


def chosen(given: str | Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Return names with commas, each of which is one that is known."""
    names = _names(given)
    for name in names:
        if name not in known:
            raise ConfigError(
                f'Unknown {what} "{name}"; the {what}s are {", ".join(known)}, or several with '
                "commas."
            )
    return names


def _names(given: str | Sequence[str]) -> list[str]:
    """Names with commas or in a list, each once."""
    names = given.split(",") if isinstance(given, str) else given
    return list(dict.fromkeys(name.strip() for name in names))
