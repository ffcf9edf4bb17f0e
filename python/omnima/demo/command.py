"""What `omnima demo` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnima.demo.running import Parts, check_extra
from omnima.errors import ConfigError
from omnima.server.ending import ends_at_once

if TYPE_CHECKING:
    from omnima.model import Model


@ends_at_once()
def run(models: Sequence[str], adapters: Sequence[str], port: int, runs: str) -> None:
    """Serve the page until SIGTERM or Ctrl-C; before it is there these end the process at once.

    Parameters
    ----------
    models
        Directories, GGUF files or names on the hub.
    adapters
        Each as ``NAME=DIR``.
    port
        0: any that is free.
    runs
        Where trained models go.

    Raises
    ------
    ConfigError, DataError
        Something that cannot be opened or served.
    """
    check_extra()
    from omnima.demo.models import load_adapters, unused
    from omnima.evaluation.directory import open_model
    from omnima.server.command import adapters_of, name_of

    found = adapters_of(adapters)
    if found and not models:
        raise ConfigError("--adapter goes with a model: name one.")
    opened: dict[str, Model] = {}
    for each in models:
        opened[unused(name_of(each), opened)] = open_model(each, dtype="auto")[0]
    load_adapters(opened, found)
    Parts.made(opened, port, runs).run()
