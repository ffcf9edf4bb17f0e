"""Checks, before the extension loads, that the torch here is of the minor it was built with."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

VERSION_FILE = "_torch_version.txt"


def built_torch(search_path: Sequence[str]) -> str | None:
    """Return the torch version that the build wrote beside the package, or None."""
    for folder in search_path:
        path = Path(folder) / VERSION_FILE
        if path.is_file():
            return path.read_text(encoding="utf-8").strip()
    return None


def running_torch() -> str | None:
    """Return the version of the torch that an import would find, without importing it."""
    loaded = sys.modules.get("torch")
    version = getattr(loaded, "__version__", None)
    if version is not None:
        return str(version)
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def minor(version: str) -> str:
    """Return ``"2.13"`` of ``"2.13.0+cpu"``.

    >>> minor("2.13.0+cpu")
    '2.13'
    """
    return ".".join(version.split("+")[0].split(".")[:2])


def check_torch(search_path: Sequence[str]) -> None:
    """Raise ImportError when torch is absent or of another minor than the one built against."""
    built = built_torch(search_path)
    if built is None:
        return
    running = running_torch()
    if running is None:
        raise ImportError(
            f"omnima needs torch {minor(built)}, and there is no torch here: install it with "
            f"`pip install 'torch=={minor(built)}.*'`."
        )
    if minor(running) != minor(built):
        raise ImportError(
            f"omnima was built with torch {minor(built)} and torch {running} is installed: mend it "
            f"with `pip install 'torch=={minor(built)}.*'`."
        )
