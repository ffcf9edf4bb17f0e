"""The models that a page offers, each with its engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from omnima.errors import ConfigError, DataError
from omnima.server.engine import LocalEngine
from omnima.server.jobs import EngineOptions
from omnima.server.prepare import stop_ids_of
from omnima.server.service import Service

if TYPE_CHECKING:
    from omnima.model import Model
    from omnima.tokenizers import Tokenizer

TRAINED = 4  # models of runs that stay open
_PREPARING = 60.0  # seconds that a prompt may take from the choice of its model to its engine
_OPTIONS = EngineOptions(max_sequences=8, max_waiting=32)


class Opened:
    """A model with the engine that writes for it.

    Parameters
    ----------
    model
        With its tokenizer; requests choose its adapters.
    """

    def __init__(self, model: Model) -> None:
        if model.tokenizer is None:
            raise ConfigError("The model has no tokenizer: set model.tokenizer.")
        self.tokenizer: Tokenizer = model.tokenizer
        self.plain = model.tokenizer.chat_template is None
        self.stop_ids = stop_ids_of(model.tokenizer)
        self._engine = LocalEngine(model, _OPTIONS, self.stop_ids)
        self.service = Service(self._engine, model.tokenizer)
        self.context, self.adapters = self._engine.context, self._engine.adapters
        self.asked_at = -math.inf  # time.monotonic() when somebody chose it last

    @property
    def in_use(self) -> bool:
        """Whether it writes, or may be about to."""
        return self.service.runs > 0 or time.monotonic() - self.asked_at < _PREPARING

    def end(self) -> None:
        """End the engine, where no event loop was begun."""
        self._engine.end()


class Models:
    """Models by name, in the order in which they came.

    All methods but the making belong to one event loop.

    Attributes
    ----------
    changes
        How often a model came or went since the page was made.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._opened: dict[str, Opened] = {}
        self._added: list[str] = []  # the newest last
        self.changes = 0
        try:
            for name, model in models.items():
                self._opened[name] = Opened(model)
        except BaseException:
            self.end()
            raise

    @property
    def names(self) -> list[str]:
        """What can be chosen."""
        return list(self._opened)

    def adapters(self, name: str | None) -> tuple[str, ...]:
        """The adapters of a model; none of one that is not there."""
        return self._opened[name].adapters if name in self._opened else ()

    def find(self, name: str | None) -> Opened:
        """Return a model.

        Raises
        ------
        ConfigError
            There is none of this name.
        """
        if name not in self._opened:
            has = f"there is {', '.join(self.names)}" if self.names else "none is open"
            asked = f"no model {name!r:.80}" if name else "no model to choose from"
            raise ConfigError(f"There is {asked}; {has}. Train one, or start the demo with one.")
        self._opened[name].asked_at = time.monotonic()
        return self._opened[name]

    async def begin(self) -> None:
        """Start all engines on this event loop."""
        for opened in self._opened.values():
            await opened.service.begin()

    async def add(self, name: str, model: Model) -> str:
        """Offer one more model; return what it is called, which nothing else is."""
        opened = await asyncio.to_thread(Opened, model)
        await opened.service.begin()
        called = unused(name, self._opened)
        self._opened[called] = opened
        self._added.append(called)
        self.changes += 1
        return called

    async def close_unused(self, name: str) -> None:
        """Close a model that was added, where nobody uses it."""
        if name in self._added and not self._opened[name].in_use:
            await self._close(name)

    async def close_old(self) -> list[str]:
        """Close models that were added, down to the newest TRAINED, but none that is in use; return
        their names.
        """
        closed = [name for name in self._added[:-TRAINED] if not self._opened[name].in_use]
        for name in closed:
            await self._close(name)
        return closed

    async def _close(self, name: str) -> None:
        opened = self._opened.pop(name)
        self._added.remove(name)
        self.changes += 1
        await opened.service.close()

    async def close(self) -> None:
        """End all that is being written, and the engines."""
        for opened in self._opened.values():
            await opened.service.close()

    def end(self) -> None:
        """The same without an event loop, before one was begun."""
        for opened in self._opened.values():
            opened.end()


def unused(name: str, taken: Mapping[str, object]) -> str:
    """Return the name, or with a number where it is taken.

    >>> unused("a", {"a": 1, "a-2": 1}), unused("b", {})
    ('a-3', 'b')
    """
    called, number = name, 1
    while called in taken:
        number += 1
        called = f"{name}-{number}"
    return called


def closed_words(names: Sequence[str]) -> str:
    """Say that models were closed; "" where none was."""
    if not names:
        return ""
    return (
        f" To save memory, {', '.join(f'“{each}”' for each in names)} can no longer be chosen: the "
        f"newest {TRAINED} opened here stay open. “Talk to it” opens an earlier run's model again."
    )


def load_adapters(models: Mapping[str, Model], adapters: Mapping[str, str]) -> None:
    """Load each adapter beside every model that it fits.

    Raises
    ------
    ConfigError, DataError
        One that fits no model, in the words of the first.
    """
    for name, directory in adapters.items():
        first: ConfigError | DataError | None = None
        fits = False
        for model in models.values():
            try:
                model.load_adapter(directory, name)
                fits = True
            except (ConfigError, DataError) as error:
                first = first or error
        if not fits:
            raise first or ConfigError(f"--adapter {name}={directory} goes with a model: name one.")
