"""Descriptions in YAML (recipes of training and of cleaning, mixtures): read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnima.errors import ConfigError


def read_description(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` is its name in messages, such as "recipe".

    Raises
    ------
    ConfigError
        If the file cannot be read, is not UTF-8 or YAML, or holds no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The {what} {path} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The {what} {path} is not UTF-8 text (byte {error.start}).") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise ConfigError(f"The {what} {path}{place} is not YAML: {problem}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The {what} {path} must be a mapping of keys to values, one a line.")
    return {str(key): value for key, value in values.items()}
