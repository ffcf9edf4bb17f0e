"""Where a model or a tokenizer lies: a directory, a GGUF file or a name on the hub."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from omnima.errors import ConfigError

# One of them makes a tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

# The weights of a directory: one file, which goes first, or shards with their index.
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>.+))?")
WAYS = "a model's directory, a GGUF file, or a name on the Hugging Face hub such as owner/name"


@dataclasses.dataclass(frozen=True)
class HubName:
    """A model on the hub: ``owner/name``, ``owner/name/FILE.gguf``, each with ``@revision``.

    >>> HubName.read("owner/name/a.Q8_0.gguf@v1")
    HubName(repo='owner/name', file='a.Q8_0.gguf', revision='v1')
    >>> HubName.read("./owner/name") is None
    True
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    @classmethod
    def read(cls, text: str) -> HubName | None:
        """The name that a text spells; None where it spells none."""
        found = _NAME.fullmatch(text)
        if found is None or ".." in found["repo"] or "--" in found["repo"]:
            return None
        if found["file"] and {"", ".", ".."} & set(found["file"].split("/")):
            return None
        return cls(found["repo"], found["file"], found["revision"])

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return self.repo + file + (f"@{self.revision}" if self.revision else "")


def is_gguf(path: Path) -> bool:
    """Whether a path is a file that begins as GGUF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def hub_name(given: str | os.PathLike[str], revision: str | None = None) -> HubName | None:
    """The hub's name that is meant: None where a file or a directory is, which goes first.

    Raises
    ------
    ConfigError
        A revision that contradicts the name's own, or one of a model that is no name on the hub.
    """
    text = os.fspath(given)
    found = None if os.path.exists(os.path.expanduser(text)) else HubName.read(text)
    if revision is None:
        return found
    if found is None:
        raise ConfigError(
            f"revision is {revision!r}, but {text} is no name on the hub: only those have one."
        )
    if found.revision not in (None, revision):
        raise ConfigError(f"{text} names a revision, and revision is {revision!r}: give one.")
    return dataclasses.replace(found, revision=revision)


def find_model(given: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the directory or the GGUF file of a model; one on the hub is fetched first.

    Parameters
    ----------
    given
        A directory, a GGUF file, or a name on the hub: ``owner/name``, ``owner/name@revision``,
        ``owner/name/FILE.gguf``. What is there as a file or a directory is never sought on the hub.
    revision
        A branch, a tag or a commit of the hub.

    Raises
    ------
    ConfigError
        It is none of these, or the hub has no such model for you.
    OmnimaError
        The hub cannot be reached, or the package huggingface_hub is not installed.
    """
    name = hub_name(given, revision)
    if name is not None:
        from omnima._downloads import fetch_model

        return fetch_model(name)
    path = Path(given).expanduser()
    if path.is_dir():
        _check_directory(path, given)
        return path
    if not path.exists():
        raise ConfigError(f"There is no directory {given}, nor a file of that name: give {WAYS}.")
    if not is_gguf(path):
        raise ConfigError(
            f"{given} is a file, but not of GGUF (its first four bytes would say so): give {WAYS}."
        )
    return path


def _check_directory(path: Path, given: str | os.PathLike[str]) -> None:
    if (path / "config.json").exists():
        return
    files = sorted(each.name for each in path.glob("*.gguf"))
    if files:
        advice = f"give one of its GGUF files, such as {path / files[0]}"
    elif (path / "checkpoints").is_dir():
        advice = "the run is not finished; continue it with omnima train --resume"
    else:
        advice = f"give {WAYS}"
    raise ConfigError(f"{given} holds no config.json: {advice}.")


def find_tokenizer(given: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the directory of a tokenizer's files, those of a model on the hub fetched first."""
    name = hub_name(given, revision)
    if name is None:
        return Path(given).expanduser()
    if name.file is not None:
        return find_model(given, revision)
    from omnima._downloads import fetch_tokenizer

    return fetch_tokenizer(name)
