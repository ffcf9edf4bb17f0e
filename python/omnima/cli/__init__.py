"""The command `omnima`: one file a command, each a thin edge over the package."""

from __future__ import annotations

from omnima.cli.app import main

__all__ = ["main"]
