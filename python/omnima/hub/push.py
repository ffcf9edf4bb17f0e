"""Upload of a model's directory to the Hugging Face hub: what is in it is checked first."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima._hub_client import in_our_words, library
from omnima._places import INDEX, TOKENIZER_FILES, WEIGHTS, HubName
from omnima.errors import ConfigError, DataError
from omnima.hub.card import FILE, license_of, read_header
from omnima.hub.certificates import OF_DIRECTORY, certificate_lines
from omnima.hub.fit import check_tokenizer
from omnima.hub.gguf.model import load_gguf
from omnima.hub.pretrained import load_pretrained
from omnima.hub.saving import OF_WEIGHTS
from omnima.hub.strict_json import read_json_object
from omnima.hub.tokenizer import tokenizer_beside

# What belongs to a model; nothing else leaves the machine: no data, no checkpoints, no records.
_MODEL = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer\.model|"
    r"tokenizer_config\.json|vocab\.json|"
    r"special_tokens_map\.json|added_tokens\.json|merges\.txt|chat_template\.jinja|"
    r"additional_chat_templates/.+\.jinja|README\.md|LICENSE(\.(md|txt))?|NOTICE(\.(md|txt))?|"
    r"certificate\.json|.+\.gguf\.certificate\.json|.+\.gguf"
)


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes
    ----------
    repository, url, commit
        Where it lies now.
    private
        Whether only you, or your organization, can read it.
    files
        The files with their sizes in bytes.
    removed
        What lay there from a model before and is no part of this one: its shards, its certificate.
    left_out
        What lies in the directory and is no part of a model.
    missing
        What a model should have and this one has not: "card", "license".
    """

    repository: str
    url: str
    commit: str
    private: bool
    files: dict[str, int]
    removed: list[str]
    left_out: list[str]
    missing: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it in the form that `omnima push --json` prints."""
        return dataclasses.asdict(self)


def push(
    directory: str | os.PathLike[str],
    repository: str,
    private: bool = False,
    message: str = "Upload a model with Omnima",
) -> Pushed:
    """Upload a model to the Hugging Face hub, as one commit.

    Weights, certificate and, with a tokenizer, chat templates of a model that was there before go.
    The model is loaded first: what does not load here is not uploaded. Only the files of a model
    are (config, weights, tokenizer, card, license, certificates, GGUF files); data, checkpoints and
    records of a run stay here. The token is huggingface_hub's: ``HF_TOKEN``, or that of
    ``hf auth login``.

    Parameters
    ----------
    directory
        A saved model, or a directory with GGUF files.
    repository
        ``owner/name``; made if it is not there.
    private
        Make the repository private. One that is public already is refused then.
    message
        Of the commit.

    Raises
    ------
    ConfigError
        No such directory, no token, a name or a repository that is not yours.
    DataError
        The model does not load, its weights hold NaN or infinity, or its card has a broken header.
    OmnimaError
        The hub cannot be reached, or huggingface_hub is not installed.
    """
    name = HubName.read(repository)
    if name is None or name.file or name.revision:
        raise ConfigError(
            f"{repository!r} is no name of a repository: give owner/name, such as ada/small-model."
        )
    folder = Path(directory).expanduser()
    if folder.is_file():
        raise ConfigError(
            f"{directory} is a file: give the directory that it lies in. Of a directory the GGUF "
            "files go along."
        )
    if not folder.is_dir():
        raise ConfigError(f"There is no directory {directory}: give that of a saved model.")
    files = _checked(folder)
    missing = _missing(folder)
    hub = library("Uploading a model")
    if hub.get_token() is None:
        raise ConfigError(
            "There is no token for the hub: log in with `hf auth login`, or put one that may write "
            "into the environment variable HF_TOKEN."
        )
    with in_our_words(repository, "write"):
        api = hub.HfApi()
        url = str(api.create_repo(repository, private=private, exist_ok=True))
        is_private = bool(api.model_info(repository).private)
        if private and not is_private:
            raise ConfigError(
                f"{repository} is there already and public, so nothing was uploaded. Make it "
                f"private in its settings ({url}), give another name, or leave --private out."
            )
        names = {_name(path, folder): path for path in files}
        removed = _replaced(api.list_repo_files(repository), names)
        operations = [
            *(hub.CommitOperationDelete(path_in_repo=name) for name in removed),
            *(
                hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
                for name, path in names.items()
            ),
        ]
        done = api.create_commit(repository, operations, commit_message=message)
    uploaded = {name.partition("/")[0] for name in names}
    return Pushed(
        repository=repository,
        url=url,
        commit=str(done.oid),
        private=is_private,
        files={name: path.stat().st_size for name, path in names.items()},
        removed=removed,
        left_out=sorted(each.name for each in folder.iterdir() if each.name not in uploaded),
        missing=missing,
    )


def _replaced(there: list[str], names: Mapping[str, Path]) -> list[str]:
    """Which files of a repository go, where these come: as in a directory that is saved over, what
    tools would take for a part of the new model.
    """
    from omnima.tokenizers import chat_files

    if "config.json" not in names:
        return []  # GGUF files beside what is there
    with_tokenizer = any(name in names for name in TOKENIZER_FILES)

    def goes(name: str) -> bool:
        template = name == chat_files.FILE or name.startswith(f"{chat_files.FOLDER}/")
        of_weights = OF_WEIGHTS.fullmatch(name) or name == OF_DIRECTORY
        return bool(of_weights or (with_tokenizer and template))

    return sorted(name for name in set(there) - set(names) if goes(name))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _checked(folder: Path) -> list[Path]:
    """The files of a model that loads."""
    found = [path for path in (*folder.iterdir(), *folder.glob("*/*.jinja")) if path.is_file()]
    files = [path for path in found if _MODEL.fullmatch(_name(path, folder))]
    gguf = [path for path in files if path.suffix == ".gguf"]
    if not (folder / "config.json").is_file() and not gguf:
        raise ConfigError(
            f"{folder} holds no config.json and no GGUF file: it is not a saved model."
        )
    for path in files:
        if path not in gguf:  # those are looked into
            _check_link(path, folder)
    for path in gguf:
        load_gguf(path, strict=True)
    if (folder / "config.json").is_file():
        config, _ = load_pretrained(folder, strict=True)
        tokenizer = tokenizer_beside(folder)
        if tokenizer is not None:
            check_tokenizer(tokenizer, config, str(folder), folder)
        files += _weights(folder)
    certificate_lines(folder)  # raises where one is damaged
    return sorted(files)


def _check_link(path: Path, folder: Path) -> None:
    """Refuse a link out of the directory: its file may be anything, and would be published.

    Those of the cache of huggingface_hub lead to the blobs of the repository.
    """
    root = folder.resolve()
    places = [root, root.parents[1] / "blobs"] if len(root.parents) > 1 else [root]
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in places):
        raise ConfigError(
            f"{path} is a link to {real}, outside of the directory: put the file itself there if "
            "all may read it."
        )


def _weights(folder: Path) -> list[Path]:
    """The files that loading reads: of a whole model and of shards the whole goes first."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    shards = set(read_json_object(folder / INDEX)["weight_map"].values())
    return [folder / INDEX, *(folder / each for each in shards)]


def _missing(folder: Path) -> list[str]:
    path = folder / FILE
    if not path.is_file():
        return ["card", "license"]
    header = read_header(path.read_text(encoding="utf-8", errors="replace"))
    if header is None:
        raise DataError(
            f"{path}: the header between the lines --- is not valid YAML, which hubs refuse. "
            "Correct it, or remove the file and save the model again."
        )
    return [] if license_of(header) else ["license"]
