"""A tokenizer on disk, as transformers.AutoTokenizer reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnima._durable import write_durably
from omnima.errors import DataError
from omnima.tokenizers.as_json import added_token, config_json, tokenizer_json
from omnima.tokenizers.description import (
    BYTE_PATTERN,
    BYTE_PIECES,
    ROLE_ADDED,
    ROLE_BYTE,
    ROLE_SPECIAL,
    ROLE_TEXT,
    WORD_PATTERN,
    Description,
    Kind,
    no_merges,
)
from omnima.tokenizers.stages import (
    WORDS_JSON,
    Template,
    pre_tokenizer_json,
    read_pre_tokenizer,
    read_template,
)

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"  # how GPT-2's first files were split
_END_OF_TEXT = "<|endoftext|>"


def serialize(description: Description) -> dict[str, bytes]:
    """Return the files of a tokenizer, by name; equal tokenizers give equal bytes."""
    return {
        TOKENIZER_FILE: _dump(tokenizer_json(description), indent=None),
        CONFIG_FILE: _dump(config_json(description), indent=2),
    }


def write(description: Description, directory: Path) -> None:
    """Write the files, each at once, into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in serialize(description).items():
        write_durably(directory / name, content)


def read(directory: Path) -> Description:
    """Read the files of a tokenizer; DataError names the file and what in it is wrong."""
    path = directory / TOKENIZER_FILE
    if not path.exists() and (directory / VOCABULARY_FILE).exists():
        path, content = directory / VOCABULARY_FILE, _from_two_files(directory)
    else:
        content = _load(path)
    return _Reader(path, content, _config_beside(path)).description()


def read_json(path: Path, named: Mapping[str, str | None]) -> Description:
    """Read a tokenizer.json of any name; what is named goes before the config beside it."""
    given = {name: token for name, token in named.items() if token is not None}
    return _Reader(path, _load(path), {**_config_beside(path), **given}).description()


def _config_beside(path: Path) -> dict[str, Any]:
    config = path.with_name(CONFIG_FILE)
    return _load(config) if config.exists() else {}


def _from_two_files(directory: Path) -> dict[str, Any]:
    """Return what tokenizer.json would hold, out of GPT-2's vocabulary and merges."""
    merges = directory / MERGES_FILE
    try:
        lines = merges.read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{merges}: the merges that go with {VOCABULARY_FILE} cannot be read: {error}"
        ) from None
    vocabulary = _load(directory / VOCABULARY_FILE)
    ids = {_END_OF_TEXT: vocabulary[_END_OF_TEXT]} if _END_OF_TEXT in vocabulary else {}
    return {
        "added_tokens": [added_token(i, token, True) for token, i in ids.items()],
        "pre_tokenizer": pre_tokenizer_json("gpt2"),
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line for line in lines if line.strip() and not line.startswith("#version")],
        },
    }


def _dump(content: dict[str, Any], indent: int | None) -> bytes:
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        content, ensure_ascii=False, indent=indent, separators=separators, allow_nan=False
    )
    return text.encode("utf-8")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; expected the directory of a tokenizer or of a model"
            " with its tokenizer"
        ) from None
    except (ValueError, RecursionError) as error:  # broken text, a huge number, deep nesting
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


class _Reader:
    """Turns the content of tokenizer.json into a description and leaves nothing unheeded."""

    def __init__(self, path: Path, content: dict[str, Any], config: dict[str, Any]) -> None:
        self.path, self.content, self.config = path, content, config
        model = content.get("model")
        if not isinstance(model, dict):
            raise DataError(f"{path}: the field 'model' is missing; this is not a tokenizer.json")
        self.model: dict[str, Any] = model
        self.pattern: str | None = None
        self.template = Template()
        self.nfc = False

    def unsupported(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: {what} is not supported; Omnima reads byte-level BPE (of the GPT-2,"
            " Llama 3 and Qwen kind), and the BPE, unigram, character and byte tokenizers that it"
            " writes (no normalizer or pre-tokenizer)"
        )

    def description(self) -> Description:
        algorithm = self.model.get("type")
        stage = self.content.get("pre_tokenizer")
        words = algorithm == "WordLevel" and stage == WORDS_JSON
        self.pattern = WORD_PATTERN if words else read_pre_tokenizer(stage, self.unsupported)
        self.template = read_template(self.content.get("post_processor"), self.unsupported)
        normalizer = self.content.get("normalizer")
        self.nfc = self.pattern is not None and normalizer == {"type": "NFC"}
        if normalizer is not None and not self.nfc:
            name = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
            raise self.unsupported(f"the normalizer '{name}'")
        read = {"BPE": self._bpe, "Unigram": self._unigram, "WordLevel": self._words}
        if algorithm not in read or (algorithm == "WordLevel" and not words):
            raise self.unsupported(f"a model of type '{algorithm}'")
        try:
            return read[algorithm]()
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self.path}: the tokenizer is damaged: {type(error).__name__}: {error}"
            ) from error

    def _bpe(self) -> Description:
        defaults = {
            "dropout": (None, 0.0),
            "continuing_subword_prefix": (None, ""),
            "end_of_word_suffix": (None, ""),
            "fuse_unk": (None, False),
        }
        if self.pattern is None:
            defaults["ignore_merges"] = (None, False)
        for option, accepted in defaults.items():
            if self.model.get(option) not in accepted:
                raise self.unsupported(f"the BPE option {option}={self.model[option]!r}")
        vocabulary: dict[str, int] = self.model["vocab"]
        pieces = self._pieces()
        rows = []
        for merge in self.model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            rows.append((vocabulary[left], vocabulary[right], vocabulary[left + right]))
        merges = np.array(rows, dtype=np.uint32).reshape(-1, 3) if rows else no_merges()
        if self.pattern is not None:
            return self._byte_level(pieces, merges)
        fallback = bool(self.model.get("byte_fallback"))
        pieces, roles = self._with_added(pieces, fallback)
        text = any(role == ROLE_TEXT for role in roles)
        kind: Kind = "char" if not fallback else "bpe" if text else "byte"
        unknown = str(self.model.get("unk_token"))
        if not fallback and (unknown not in vocabulary or rows):
            raise self.unsupported(
                "a BPE model without byte_fallback that has merges or no unk_token"
            )
        return self._description(
            kind, pieces, roles, merges=merges, unknown=None if fallback else vocabulary[unknown]
        )

    def _pieces(self) -> list[str]:
        vocabulary: dict[str, int] = self.model["vocab"]
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
            raise DataError(
                f"{self.path}: the ids of the vocabulary are not 0 to {len(pieces) - 1}, each once"
            )
        return pieces

    def _words(self) -> Description:
        pieces, roles = self._with_added(self._pieces(), False)
        unknown = pieces.index(self.model["unk_token"])
        return self._description("word", pieces, roles, pattern=self.pattern, unknown=unknown)

    def _byte_level(self, pieces: list[str], merges: Any) -> Description:
        pieces, roles = self._with_added(pieces, False)
        whole = bool(self.model.get("ignore_merges"))
        if not any(self.config.get(f"{name}_token") for name in ("bos", "eos")):
            # GPT-2's own files name no token: its begin and its end are this one.
            if ROLE_SPECIAL in (
                role for piece, role in zip(pieces, roles) if piece == _END_OF_TEXT
            ):
                self.config = {**self.config, "bos_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT}
        return self._description(
            "bpe", pieces, roles, merges=merges, pattern=self.pattern, whole_first=whole
        )

    def _unigram(self) -> Description:
        if self.pattern is not None:
            raise self.unsupported("a unigram model with a pre_tokenizer")
        if not self.model.get("byte_fallback"):
            raise self.unsupported("a unigram model without byte_fallback")
        entries = self.model["vocab"]
        pieces, roles = self._with_added([piece for piece, _ in entries], True)
        scores = [float(score) for _, score in entries]
        for (piece, _), score in zip(entries, scores, strict=True):
            if not math.isfinite(score):
                raise ValueError(f"the score of {piece!r} is {score}, not a finite number")
        scores += [0.0] * (len(pieces) - len(scores))
        return self._description("unigram", pieces, roles, scores=scores)

    def _with_added(self, pieces: list[str], fallback: bool) -> tuple[list[str], list[int]]:
        pieces = list(pieces)
        added: dict[int, int] = {}
        for token in sorted(
            self.content.get("added_tokens") or [], key=lambda token: int(token["id"])
        ):
            content, token_id = token["content"], int(token["id"])
            plain = self.pattern is None and not token.get("special")
            if plain or any(token.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
                raise self.unsupported(
                    f"the added token {content!r}, which is not special or strips spaces,"
                )
            if token_id == len(pieces):
                pieces.append(content)
            if not 0 <= token_id < len(pieces) or pieces[token_id] != content:
                raise DataError(
                    f"{self.path}: the added token {content!r} has id {token_id}, which is"
                    " another's"
                )
            added[token_id] = ROLE_SPECIAL if token.get("special") else ROLE_ADDED
        roles = [
            added[i]
            if i in added
            else ROLE_BYTE
            if fallback and BYTE_PATTERN.fullmatch(piece)
            else ROLE_TEXT
            for i, piece in enumerate(pieces)
        ]
        if fallback and roles.count(ROLE_BYTE) != len(BYTE_PIECES):
            raise self.unsupported(
                f"byte_fallback with {roles.count(ROLE_BYTE)} of the 256 byte tokens"
            )
        return pieces, roles

    def _description(
        self, kind: Kind, pieces: list[str], roles: list[int], **parts: Any
    ) -> Description:
        index = {piece: i for i, piece in enumerate(pieces)}

        def special(name: str) -> int | None:
            token = self.config.get(name)
            content = token.get("content") if isinstance(token, dict) else token
            if content is None:
                return None
            if content not in index:
                raise DataError(
                    f"{self.path.with_name(CONFIG_FILE)}: {name} is {content!r}, which"
                    f" {TOKENIZER_FILE} does not have"
                )
            return index[content]

        parts = {"merges": no_merges(), "scores": (), **parts}
        bos, eos, pad = (special(f"{name}_token") for name in ("bos", "eos", "pad"))
        for token, expected in ((self.template.before, bos), (self.template.after, eos)):
            if token is not None and index.get(token) != expected:
                raise self.unsupported(
                    f"a post_processor that adds {token!r}, which is not the begin or end token of"
                    f" {CONFIG_FILE},"
                )
        return Description(
            kind=kind,
            pieces=pieces,
            roles=roles,
            bos=bos,
            eos=eos,
            pad=pad,
            nfc=self.nfc,
            adds_bos=self.template.before is not None,
            adds_eos=self.template.after is not None,
            **parts,
        )
