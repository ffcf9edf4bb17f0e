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
    "bitfit": {"kind": "bitfit"},
    "vera": {"kind": "vera"},
    "adalora": {"kind": "adalora"},
    "bottleneck": {"kind": "bottleneck"},
    "prompt": {"kind": "prompt"},
    "prefix": {"kind": "prefix"},
}
#: Kinds that are tokens in front of a text, and stand at no layers that one could choose.
IN_FRONT = ("prompt", "prefix")
#: What a LoRA may be told; a kind that is none has of these what is said here, and why no more.
_OF_LORA = (
    *("rank", "alpha", "dropout", "init", "rank_stabilized", "up_rate"),
    *("rank_pattern", "alpha_pattern"),
)
_OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "ia3": ((), "it multiplies, and adds no product"),
    "bitfit": ((), "its biases learn, and it adds no product"),
    "vera": (("rank", "dropout"), "its matrices are random and rest; two vectors learn"),
    "adalora": (("rank", "alpha", "dropout"), "its ranks follow from a budget"),
    "bottleneck": (("rank",), "it stands behind the layers, and adds no product to them"),
    "prompt": (("init",), "it adds no product: virtual tokens learn"),
    "prefix": (("init",), "it adds no product: virtual tokens learn"),
}
#: Where none is asked for, and it is not 16: of a bottleneck its width.
_RANKS = {"vera": 256, "adalora": 8, "bottleneck": 64}
_OF_BUDGETS = ("initial_rank", "budget_start", "budget_end", "budget_every", "orthogonality")
_VIRTUAL_TOKENS = 20
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
    #: Prompt and prefix: how many stand in front of a text.
    virtual_tokens: int = 0
    #: AdaLoRA: the rank that a layer begins with; `rank` is what is left on average.
    initial_rank: int = 0
    #: AdaLoRA: the shares of the steps after which the budget begins and ends to shrink, and how
    #: many steps lie between.
    budget_start: float = 0.1
    budget_end: float = 0.7
    budget_every: int = 10
    #: AdaLoRA: weight of the penalty that keeps directions apart.
    orthogonality: float = 0.5

    @classmethod
    def of(cls, method: str, **given: Any) -> AdapterOptions:
        """Return the options of a method; ConfigError for what it does not have."""
        if method not in METHODS:
            raise ConfigError(f'Unknown adapter "{method}"; there are {", ".join(METHODS)}.')
        fixed = METHODS[method]
        values = {name: value for name, value in given.items() if value is not None}
        if values.get("virtual_tokens") and fixed["kind"] not in IN_FRONT:
            raise ConfigError(f"{method} has no virtual_tokens: {' and '.join(IN_FRONT)} have.")
        if fixed["kind"] != "adalora" and (odd := [n for n in _OF_BUDGETS if n in values]):
            raise ConfigError(f"{method} has no {odd[0]}: adalora has a budget of ranks.")
        for name, value in fixed.items():
            if name in values and values[name] != value and name != "up_rate":
                raise ConfigError(f"{method} has {name} {value!r}, not {values[name]!r}.")
        if fixed["kind"] in _OTHERS:
            return cls._of_another_kind(method, values)
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
    def _of_another_kind(cls, kind: str, values: Mapping[str, Any]) -> AdapterOptions:
        has, why = _OTHERS[kind]
        for name in _OF_LORA:
            if name not in has and values.get(name):
                raise ConfigError(f"{kind} has no {name}: {why}.")
        rank = values.get("rank", _RANKS.get(kind, 1))
        known = {name: values[name] for name in ("dropout", "seed", "init") if name in values}
        if kind in IN_FRONT:
            known["virtual_tokens"] = values.get("virtual_tokens", _VIRTUAL_TOKENS)
        if kind == "adalora":
            return cls._of_a_budget(values)
        # What is added counts once.
        options = cls(kind=kind, rank=rank, alpha=1.0, **known)
        options.check()
        return dataclasses.replace(options, alpha=float(rank))

    @classmethod
    def _of_a_budget(cls, values: Mapping[str, Any]) -> AdapterOptions:
        rank = values.get("rank", _RANKS["adalora"])
        first = values.get("initial_rank", math.ceil(1.5 * rank))
        known = {name: values[name] for name in ("dropout", "seed") if name in values}
        of_budget = {name: values[name] for name in _OF_BUDGETS if name in values}
        options = cls(
            kind="adalora",
            rank=rank,
            alpha=values.get("alpha", 2.0 * first),
            **{**known, **of_budget, "initial_rank": first},
        )
        options.check()
        return options

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
        tokens = self.virtual_tokens
        if isinstance(tokens, bool) or tokens < (1 if self.kind in IN_FRONT else 0):
            raise ConfigError(f"virtual_tokens is {tokens}, but must be at least 1.")
        if self.kind == "adalora":
            self._check_budget()
        inits = _INITS[:2] if self.kind in IN_FRONT else _INITS
        if self.init not in inits:
            raise ConfigError(f'init is "{self.init}"; the choices are {", ".join(inits)}.')
        if not 0 < self.up_rate <= 1e6:
            raise ConfigError(f"up_rate is {self.up_rate}, but must be above 0.")

        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            _check_pattern(pattern)

    def _check_budget(self) -> None:
        if not self.rank <= self.initial_rank:
            raise ConfigError(
                f"initial_rank is {self.initial_rank}, but must be a whole number from the rank, "
                f"{self.rank}, on: ranks shrink."
            )
        if not 0 <= self.budget_start < self.budget_end <= 1:
            raise ConfigError(
                f"The budget shrinks from {self.budget_start} to {self.budget_end} of the steps, "
                "but must from 0 on and to 1 at most, in this order."
            )
        if self.budget_every < 1 or self.orthogonality < 0:
            raise ConfigError(
                f"budget_every is {self.budget_every} and orthogonality {self.orthogonality}, but "
                "they must be at least 1 and 0."
            )

    def rank_of(self, module: str) -> int:
        """The rank at a module, of AdaLoRA the one that it begins with."""
        return int(_by_pattern(self.rank_pattern, module, self.initial_rank or self.rank))

    def scale(self, module: str) -> float:
        """By which the product counts at a module: alpha / rank, or alpha / sqrt(rank)."""
        if self.kind == "adalora":  # as PEFT has it
            return self.alpha / (self.initial_rank + 1e-5)
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
