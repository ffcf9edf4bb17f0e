"""What an adapter is: its kind, its rank, how much it counts, how it begins."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from omnima.errors import ConfigError

#: A method by name: the core's kind, and what else it fixes.
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora"},
    "rslora": {"kind": "lora", "rank_stabilized": True},
    "lora+": {"kind": "lora", "up_rate": 16.0},
    "dora": {"kind": "dora"},
    "pissa": {"kind": "lora", "init": "pissa"},
    "olora": {"kind": "lora", "init": "olora"},
    "ia3": {"kind": "ia3"},
}
#: Of methods that add a product of some rank.
_OF_RANK = [
    *("rank", "alpha", "dropout", "init", "rank_stabilized", "up_rate"),
    *("rank_pattern", "alpha_pattern"),
]
_INITS = ("default", "gaussian", "pissa", "olora")


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """An adapter's options; see :meth:`omnima.Model.add_adapter`.

    >>> AdapterOptions.of("lora", rank=8).scale("model.layers.0.self_attn.q_proj")
    2.0
    """

    kind: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    init: str = "default"
    rank_stabilized: bool = False
    up_rate: float = 1.0
    seed: int = 0
    rank_pattern: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    #: IA3: the modules whose inputs are scaled.
    feedforward: tuple[str, ...] = ()

    @classmethod
    def of(cls, method: str, **given: Any) -> AdapterOptions:
        """Return the options of a method; ConfigError for what it does not have."""
        if method not in METHODS:
            raise ConfigError(f'Unknown adapter "{method}"; there are {", ".join(METHODS)}.')
        fixed = METHODS[method]
        values = {name: value for name, value in given.items() if value is not None}
        for name, value in fixed.items():
            if name in values and values[name] != value and name != "up_rate":
                raise ConfigError(f"{method} has {name} {value!r}, not {values[name]!r}.")
        if fixed["kind"] == "ia3":
            return cls._of_factors(method, values)
        values = {**fixed, **values}
        rank = values.get("rank", 16)
        if "alpha" not in values:
            plain = values.get("init", "default") in ("default", "gaussian")
            values["alpha"] = (
                float(rank) if values.get("rank_stabilized") or not plain else 2.0 * rank
            )
        options = cls(**values)
        options.check()
        return options

    @classmethod
    def _of_factors(cls, method: str, values: Mapping[str, Any]) -> AdapterOptions:
        for name in _OF_RANK:
            if values.get(name):
                raise ConfigError(f"{method} has no {name}: it multiplies, and adds no product.")
        return cls(kind="ia3", seed=values.get("seed", 0))

    def check(self) -> None:
        """Refuse values that no adapter can have."""
        ranks = {"rank": self.rank, **{f"rank of {k}": v for k, v in self.rank_pattern.items()}}
        for name, rank in ranks.items():
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
                raise ConfigError(f"{name} is {rank!r}, but must be a whole number from 1 on.")
        of_modules = {f"alpha of {key}": each for key, each in self.alpha_pattern.items()}
        for name, alpha in {"alpha": self.alpha, **of_modules}.items():
            if not math.isfinite(alpha) or alpha <= 0:
                raise ConfigError(f"{name} is {alpha}, but must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}, but must be at least 0 and below 1.")
        if self.init not in _INITS:
            raise ConfigError(f'init is "{self.init}"; the choices are {", ".join(_INITS)}.')
        if not 0 < self.up_rate <= 1e6:
            raise ConfigError(f"up_rate is {self.up_rate}, but must be above 0.")

        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            _check_pattern(pattern)

    def rank_of(self, module: str) -> int:
        """The rank at a module."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scale(self, module: str) -> float:
        """By which the product counts at a module: alpha / rank, or alpha / sqrt(rank)."""
        rank = self.rank_of(module)
        alpha = float(_by_pattern(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


# Names with alternatives and any text (.*), escaped characters, groups; nothing is repeated but by
# .*, and that a few times: a pattern out of a file must not keep us busy for ever.
_PATTERN = re.compile(r"(?:[\w\-^$|()]|\\.|\.\*?)+")
_MOST_TEXTS, _LONGEST = 3, 1000


def _check_pattern(pattern: str) -> None:
    simple = len(pattern) <= _LONGEST and pattern.count(".*") <= _MOST_TEXTS
    if not simple or not _PATTERN.fullmatch(pattern):
        raise ConfigError(
            f'"{pattern[:60]}" is no pattern of module names: those are names, with .* for any '
            f"text ({_MOST_TEXTS} times at most), | between alternatives and groups in brackets."
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f'"{pattern}" is no regular expression: {error}.') from error


def _by_pattern(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The first pattern (a regular expression of the end of a name, as PEFT has it) that fits."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise
