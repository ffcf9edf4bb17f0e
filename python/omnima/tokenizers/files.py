"""A tokenizer on disk, as transformers.AutoTokenizer reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnima._durable import write_durably
from omnima.errors import DataError
from omnima.tokenizers import chat_files, model_file, sentencepiece_writer
from omnima.tokenizers.as_json import added_token, config_json, tokenizer_json
from omnima.tokenizers.description import (
    BYTE_PATTERN,
    BYTE_PIECES,
    ROLE_ADDED,
    ROLE_BYTE,
    ROLE_SPECIAL,
    ROLE_TEXT,
    ROLE_USER,
    SPACE_MARK,
    WORD_PATTERN,
    Description,
    Found,
    Kind,
    Marking,
    no_merges,
    own_padding,
)
from omnima.tokenizers.marking_stages import is_marked, read_marking
from omnima.tokenizers.stages import (
    WORDS_JSON,
    Template,
    pre_tokenizer_json,
    read_pre_tokenizer,
    read_template,
)

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
MODEL_FILE = "tokenizer.model"  # of SentencePiece
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"  # how GPT-2's first files were split
_END_OF_TEXT = "<|endoftext|>"


def serialize(description: Description) -> dict[str, bytes]:
    """Return the files that say a tokenizer's ids, by name; equal tokenizers give equal bytes."""
    written = {
        TOKENIZER_FILE: _dump(tokenizer_json(description), indent=None),
        CONFIG_FILE: _dump(config_json(description), indent=2),
    }
    if description.marking is not None and description.marking.sentencepiece:
        written[MODEL_FILE] = sentencepiece_writer.write(description)
    return written


def write(description: Description, directory: Path, templates: chat_files.Templates) -> None:
    """Write the files, each at once, into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {**config_json(description), **chat_files.as_config(templates)}
    contents = {**serialize(description), CONFIG_FILE: _dump(config, indent=2)}
    for name, content in contents.items():
        write_durably(directory / name, content)
    chat_files.write(templates, directory)


def read_templates(directory: Path) -> chat_files.Templates:
    """Read the chat templates of a directory: its files, or what its config says."""
    config = directory / CONFIG_FILE
    return chat_files.read(directory, _config_beside(config), config)


def read(directory: Path) -> Description:
    """Read the files of a tokenizer; DataError names the file and what in it is wrong."""
    path, model = directory / TOKENIZER_FILE, directory / MODEL_FILE
    config = _config_beside(path)
    if model_file.OWN_KEY in config or (model.exists() and not path.exists()):
        return model_file.read(model, config)
    if not path.exists() and (directory / VOCABULARY_FILE).exists():
        path, content = directory / VOCABULARY_FILE, _from_two_files(directory)
    else:
        content = _load(path)
    return _Reader(path, content, config).description()


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
        self.marking: Marking | None = None
        self.found: list[Found] = []

    def unsupported(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: {what} is not supported; Omnima reads byte-level BPE (of the GPT-2,"
            " Llama 3 and Qwen kind), BPE and unigram whose pieces spell spaces as U+2581 (of the"
            " Llama 2, Mistral and Gemma kind), and the tokenizers that it writes"
        )

    def description(self) -> Description:
        algorithm = self.model.get("type")
        stage = self.content.get("pre_tokenizer")
        self.template = read_template(self.content.get("post_processor"), self.unsupported)
        if algorithm in ("BPE", "Unigram") and is_marked(self.content):
            self.marking = read_marking(self.content, self.unsupported)
            return self._with(self._bpe if algorithm == "BPE" else self._unigram)
        words = algorithm == "WordLevel" and stage == WORDS_JSON
        self.pattern = WORD_PATTERN if words else read_pre_tokenizer(stage, self.unsupported)
        normalizer = self.content.get("normalizer")
        self.nfc = self.pattern is not None and normalizer == {"type": "NFC"}
        if normalizer is not None and not self.nfc:
            name = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
            raise self.unsupported(f"the normalizer '{name}'")
        read = {"BPE": self._bpe, "Unigram": self._unigram, "WordLevel": self._words}
        if (
            not isinstance(algorithm, str)
            or algorithm not in read
            or (algorithm == "WordLevel" and not words)
        ):
            raise self.unsupported(f"a model of type '{algorithm}'")
        return self._with(read[algorithm])

    def _with(self, read: Callable[[], Description]) -> Description:
        try:
            return read()
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
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
            "fuse_unk": (None, False, True) if self.marking else (None, False),
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
        if self.marking is not None:
            name = self.model.get("unk_token")
            return self._description(
                "bpe",
                pieces,
                roles,
                merges=merges,
                unknown=None if name is None else vocabulary[name],
                fuse_unknown=bool(self.model.get("fuse_unk")),
            )
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
        if not isinstance(vocabulary, dict):
            raise ValueError("the vocabulary is no object of pieces and ids")
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
        fallback = bool(self.model.get("byte_fallback"))
        if not fallback and self.marking is None:
            raise self.unsupported("a unigram model without byte_fallback")
        entries = self.model["vocab"]
        pieces, roles = self._with_added([piece for piece, _ in entries], fallback)
        scores = [float(score) for _, score in entries]
        for (piece, _), score in zip(entries, scores, strict=True):
            if not math.isfinite(score):
                raise ValueError(f"the score of {piece!r} is {score}, not a finite number")
        scores += [0.0] * (len(pieces) - len(scores))
        given = self.model.get("unk_id") if self.marking is not None else None
        unknown = None if given is None else int(given)
        if unknown is not None and not 0 <= unknown < len(entries):
            raise ValueError(f"unk_id is {unknown}, which is no id of the {len(entries)} pieces")
        return self._description(
            "unigram",
            pieces,
            roles,
            scores=scores,
            unknown=unknown,
            fuse_unknown=unknown is not None,
        )

    def _with_added(self, pieces: list[str], fallback: bool) -> tuple[list[str], list[int]]:
        pieces = list(pieces)
        added: dict[int, int] = {}
        for token in sorted(
            self.content.get("added_tokens") or [], key=lambda token: int(token["id"])
        ):
            content, token_id = token["content"], int(token["id"])
            plain = self.pattern is None and not token.get("special")
            flags = ("single_word", "lstrip", "rstrip")
            if self.marking is not None:
                if token.get("single_word"):
                    raise self.unsupported(f"the added token {content!r} with single_word")
                self.found.append(self._found(token))
            elif plain or any(token.get(flag) for flag in flags):
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
            plain_role = ROLE_ADDED if self.marking is None else ROLE_USER
            added[token_id] = ROLE_SPECIAL if token.get("special") else plain_role
        for i, piece in enumerate(pieces):
            if not isinstance(piece, str):
                raise ValueError(f"the piece {i} is {piece!r}, no text")
        roles = [
            added[i]
            if i in added
            else ROLE_BYTE
            if fallback and BYTE_PATTERN.fullmatch(piece)
            else ROLE_TEXT
            for i, piece in enumerate(pieces)
        ]
        # Gemma's first files lack the byte token of the tab, which is a piece there.
        if self.marking is None and fallback and roles.count(ROLE_BYTE) != len(BYTE_PIECES):
            raise self.unsupported(
                f"byte_fallback with {roles.count(ROLE_BYTE)} of the 256 byte tokens"
            )
        return pieces, roles

    def _found(self, token: dict[str, Any]) -> Found:
        text = str(token["content"])
        if token.get("normalized") and self.marking and self.marking.in_normalizer:
            text = text.replace(" ", SPACE_MARK)
            text = SPACE_MARK + text if self.marking.prefix == "every" else text
        return Found(
            id=int(token["id"]),
            text=text,
            strips_left=bool(token.get("lstrip")),
            strips_right=bool(token.get("rstrip")),
            after_normalizer=bool(token.get("normalized")),
        )

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
            pad=own_padding(pad, eos),
            nfc=self.nfc,
            adds_bos=self.template.before is not None,
            adds_eos=self.template.after is not None,
            marking=self.marking,
            found=tuple(self.found),
            **parts,
        )
