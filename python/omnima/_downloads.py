"""Models and tokenizers fetched from the Hugging Face hub into its cache, and never a pickle."""

from __future__ import annotations

import json
import re
from pathlib import Path

from omnima._hub_client import in_our_words, is_offline, library
from omnima._places import INDEX, TOKENIZER_FILES, WEIGHTS, HubName
from omnima.errors import ConfigError, DataError

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
_FACTS = ("config.json", "generation_config.json", INDEX, "README.md")
_SHARD = re.compile(r"[A-Za-z0-9._-]+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def fetch_model(name: HubName) -> Path:
    """Fetch what loading a model needs; return its directory, or its GGUF file.

    Raises
    ------
    ConfigError, DataError, OmnimaError
        No such repository or file, no access, no connection, or no weights that are safe to read.
    """
    if name.file is not None:
        return _fetch_file(name, name.file)
    folder = _fetch(name, (*_FACTS, *_TOKENIZER))
    commit = folder.name
    if not (folder / "config.json").exists():
        raise _not_a_model(name, commit)
    _fetch(name, [WEIGHTS], commit)
    if (folder / WEIGHTS).exists():
        return folder
    shards = _shards(folder / INDEX)
    if shards:
        _fetch(name, shards, commit)
    if not any((folder / each).exists() for each in shards):
        raise _not_a_model(name, commit)
    return folder


def fetch_tokenizer(name: HubName) -> Path:
    """Fetch the files of a tokenizer; return the directory with them."""
    folder = _fetch(name, _TOKENIZER)
    if not any((folder / each).exists() for each in TOKENIZER_FILES):
        found = _listed(name, folder.name)
        raise DataError(
            f"{name} holds none of {', '.join(TOKENIZER_FILES)}, only {_some(found)}. A tokenizer "
            "in another format is read by omnima tokenizer import."
        )
    return folder


def _fetch(name: HubName, patterns: tuple[str, ...] | list[str], commit: str = "") -> Path:
    hub = library(f"Fetching {name}")
    with in_our_words(str(name)):
        return Path(
            hub.snapshot_download(
                name.repo,
                revision=commit or name.revision,
                allow_patterns=list(patterns),
                local_files_only=is_offline(),
            )
        )


def _fetch_file(name: HubName, file: str) -> Path:
    hub = library(f"Fetching {name}")
    from huggingface_hub import errors

    with in_our_words(str(name)):
        try:
            return Path(
                hub.hf_hub_download(
                    name.repo, file, revision=name.revision, local_files_only=is_offline()
                )
            )
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError as error:
            found = [each for each in _listed(name, name.revision) if each.endswith(".gguf")]
            raise ConfigError(
                f"{name.repo} has no file {file}; its GGUF files: {_some(found)}."
            ) from error


def _shards(index: Path) -> list[str]:
    """The files that an index names; none where it is absent or damaged."""
    if not index.exists():
        return []
    try:
        found = {str(each) for each in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return sorted(each for each in found if _SHARD.fullmatch(each))


def _listed(name: HubName, revision: str | None) -> list[str]:
    hub = library(f"Fetching {name}")
    with in_our_words(str(name)):
        if is_offline():
            raise hub.errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        return sorted(hub.HfApi().list_repo_files(name.repo, revision=revision))


def _not_a_model(name: HubName, commit: str) -> ConfigError | DataError:
    files = _listed(name, commit)
    gguf = [each for each in files if each.endswith(".gguf")]
    if gguf:
        return ConfigError(
            f"{name} holds GGUF files and no safetensors: choose one of {_some(gguf)}, as in "
            f"{HubName(name.repo, gguf[0], name.revision)}."
        )
    pickles = [each for each in files if each.endswith(_PICKLES)]
    if pickles:
        return DataError(
            f"{name} holds its weights only as pickles ({_some(pickles)}), which can run code when "
            "read, so Omnima never fetches or opens them. Look for a revision with safetensors "
            "(the hub offers conversions as refs/pr/NUMBER), or convert it where you trust it."
        )
    lacks = f"it has no {WEIGHTS}"
    if "config.json" not in files:
        lacks = "it has no config.json"
    elif INDEX in files:
        lacks += f", its {INDEX} names no shard that is there"
    return DataError(f"{name} is no model that Omnima reads: {lacks}, only {_some(files)}.")


def _some(files: list[str]) -> str:
    shown = ", ".join(files[:8]) or "no files"
    return shown + (f" and {len(files) - 8} more" if len(files) > 8 else "")
