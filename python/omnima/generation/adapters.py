"""Which adapters each prompt of a call is answered with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from omnima.errors import ConfigError
from omnima.generation.protocols import LanguageModel

if TYPE_CHECKING:
    from omnima._core import AdaptedModel

AdapterChoice: TypeAlias = "str | Mapping[str, float] | None"
AdapterChoices: TypeAlias = "str | Mapping[str, float] | Sequence[AdapterChoice]"


class _Adaptable(Protocol):
    def adapted(self, weights: Mapping[str, float] | str | None) -> AdaptedModel | None: ...


def adapted_of(
    model: LanguageModel, choices: AdapterChoices | None, prompts: int
) -> list[AdaptedModel | None] | None:
    """What the chosen adapters make of the model, one a prompt; None: those in use, for all.

    Raises
    ------
    ConfigError
        Another number of choices than of prompts, a choice that is none, an unknown name, or a
        model that has no adapters.
    """
    if choices is None:
        return None
    each: list[AdapterChoice]
    each = [choices] * prompts if isinstance(choices, str | Mapping) else list(choices)
    if len(each) != prompts:
        raise ConfigError(
            f"adapters has {len(each)} choices, but there are {prompts} prompts: give one a prompt."
        )
    if not hasattr(model, "adapted"):
        raise ConfigError("This model takes no adapters: leave adapters out.")
    made: dict[tuple[tuple[str, float], ...], AdaptedModel | None] = {}
    return [_adapted(cast(_Adaptable, model), choice, made) for choice in each]


def _adapted(
    model: _Adaptable,
    choice: AdapterChoice,
    made: dict[tuple[tuple[str, float], ...], AdaptedModel | None],
) -> AdaptedModel | None:
    """Equal choices are one object, so that the engine computes them together."""
    if not (choice is None or isinstance(choice, str | Mapping)):
        raise ConfigError(f"An adapter is chosen by name or {{name: weight}}; got {choice!r:.80}.")
    weights = {choice: 1.0} if isinstance(choice, str) else dict(choice or {})
    key = tuple(sorted(weights.items()))
    if key not in made:
        made[key] = model.adapted(weights)
    return made[key]
