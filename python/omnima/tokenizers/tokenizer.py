"""The tokenizer that users hold: trained here, saved for transformers, run by the C++ core."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (the extension links to its libraries)
from numpy.typing import ArrayLike, NDArray

from omnima import _core
from omnima._core import StreamDecoder
from omnima._places import find_tokenizer
from omnima.errors import ConfigError, DataError
from omnima.tokenizers import files, foreign, rank_file, training
from omnima.tokenizers.chat import ChatTemplates
from omnima.tokenizers.chat_files import Templates
from omnima.tokenizers.description import ROLE_SPECIAL, Description, Kind, check_kind
from omnima.tokenizers.growth import with_tokens
from omnima.tokenizers.stored_texts import StoredTexts

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer(ChatTemplates):
    """Text to token ids and back.

    Made by :meth:`train` or :meth:`from_pretrained`. The kinds are ``"bpe"`` and ``"unigram"``
    (pieces learnt from text, every other character as its UTF-8 bytes), ``"byte"``, ``"char"`` and
    ``"word"``. All but the last two give back any text exactly; those know the characters or words
    of their corpus and show others as U+FFFD. The same files loaded by
    ``transformers.AutoTokenizer`` give the same ids.

    Examples
    --------
    >>> tokenizer = Tokenizer.train(["to be or not to be"], "byte")
    >>> tokenizer.decode(tokenizer.encode("héllo"))
    'héllo'
    """

    def __init__(
        self,
        description: Description,
        templates: Templates | None = None,
        core: _core.Tokenizer | None = None,
    ) -> None:
        if description.pad is not None and description.pad == description.eos:
            raise ConfigError(
                "padding and end are the same token; a model would never learn to stop"
            )
        self.description = description
        self._templates = dict(templates or {})
        self._fingerprint: str | None = None
        # A core that is given was made of this description already.
        self.core = _core_of(description) if core is None else core

    @classmethod
    def train(
        cls,
        source: Iterable[str],
        kind: str = "bpe",
        vocab_size: int | None = None,
        special_tokens: Sequence[str] = (),
        *,
        split_digits: bool = True,
        character_coverage: float = 0.9995,
        max_training_bytes: int = 64 << 20,
        code: bool = False,
    ) -> Tokenizer:
        """Learn a tokenizer from documents.

        Parameters
        ----------
        source
            Documents, read once. All of them are counted; about ``max_training_bytes`` of their
            lines, evenly spread, are learnt from.
        kind
            ``"bpe"``, ``"unigram"``, ``"char"``, ``"byte"`` or ``"word"``.
        vocab_size
            Number of ids in all (specials and the 256 byte tokens included), up to 65536. When
            left out: the power of two nearest to the square root of the corpus's bytes, at least
            512, less where the corpus cannot fill it.
        special_tokens
            Control tokens of your own, such as ``"<|user|>"``; they follow ``<pad>``, ``<s>`` and
            ``</s>``.
        split_digits
            Make every digit a token of its own, which helps with arithmetic.
        character_coverage
            Share of the corpus's characters that get a piece of their own; the rarest others
            become bytes.
        max_training_bytes
            Bound on the text held in memory for learning.
        code
            Kind ``"bpe"``: learn runs of line ends, tabs and spaces too, so that a line's end and
            the indentation behind it become one token.

        Raises
        ------
        ConfigError
            An unknown kind, or a size that the corpus cannot give (the message names the nearest
            one).
        DataError
            An empty corpus or text that is not valid Unicode.
        """
        description = training.train(
            source,
            check_kind(kind),
            vocab_size,
            tuple(special_tokens),
            split_digits=split_digits,
            character_coverage=character_coverage,
            max_training_bytes=max_training_bytes,
            code=code,
        )
        return cls(description)

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str], revision: str | None = None
    ) -> Tokenizer:
        """Load ``tokenizer.json`` and ``tokenizer_config.json``, with the chat templates.

        Parameters
        ----------
        directory
            A directory, or a name on the Hugging Face hub (``owner/name``,
            ``owner/name@revision``), whose files are fetched into the hub's cache. A directory that
            is there is never sought on the hub. For the tokenizer of a GGUF file see
            :func:`omnima.hub.open_tokenizer`.
        revision
            A branch, a tag or a commit of the hub.
        """
        path = find_tokenizer(directory, revision)
        if path.is_file():
            raise ConfigError(
                f"{path} is a file: give the directory of a tokenizer. omnima.hub.open_tokenizer"
                " reads that of a GGUF file, Tokenizer.from_file those of other libraries"
            )
        return built(files.read(path), path, files.read_templates(path), cls)

    @classmethod
    def from_rank_file(
        cls,
        path: str | os.PathLike[str],
        pattern: str,
        special_tokens: Mapping[str, int] | Sequence[str] | None = None,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> Tokenizer:
        """Load a rank file as tiktoken has them: on each line a token in base64 and its rank.

        Parameters
        ----------
        path
            The file, such as ``cl100k_base.tiktoken`` or Llama 3's ``tokenizer.model``.
        pattern
            How text is cut first: ``"gpt2"`` (r50k and p50k too), ``"cl100k"``, ``"o200k"``,
            ``"llama3"``, ``"qwen2"``, ``"gpt2-digits"``, or tiktoken's regular expression of one.
        special_tokens
            Control tokens with their ids, or in order behind the ranks. When left out: those of the
            files by OpenAI, else ``<|endoftext|>`` behind the ranks.
        bos_token, eos_token
            Which of them begin and end a document; by default ``<|begin_of_text|>`` and
            ``<|end_of_text|>`` where they are there, else ``<|endoftext|>`` for both.

        Raises
        ------
        DataError
            A broken line (with its number), an id given twice, or a pattern that is unknown.
        """
        found = rank_file.read(Path(path), pattern, special_tokens, bos_token, eos_token)
        return built(found, path, None, cls)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: Sequence[str] | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> Tokenizer:
        """Load a file of another library, whose kind is seen from what it holds.

        Parameters
        ----------
        path
            A ``tokenizer.json`` (by any name, or its directory), a rank file, or a ``.model`` file
            of SentencePiece.
        pattern, special_tokens
            For rank files, see :meth:`from_rank_file`; the pattern of a file that keeps tiktoken's
            name, such as ``cl100k_base.tiktoken``, is known.
        bos_token, eos_token
            Which special tokens begin and end a document, where the file does not say.

        Raises
        ------
        DataError
            A file that is none of these, is damaged, or asks for what Omnima does not have.
        ConfigError
            A rank file without its pattern, or a token that the file does not have.
        """
        found = foreign.read(Path(path), pattern, special_tokens, bos_token, eos_token)
        directory = Path(path) if Path(path).is_dir() else Path(path).parent
        belongs = directory == Path(path) or (directory / files.CONFIG_FILE).is_file()
        return built(found, path, files.read_templates(directory) if belongs else None, cls)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the files that :meth:`from_pretrained` and ``transformers.AutoTokenizer`` read."""
        files.write(self.description, Path(directory), self._templates)

    def add_tokens(self, tokens: Sequence[str], special: bool = True) -> list[int]:
        """Add tokens behind those that are there, and return the id of each.

        Parameters
        ----------
        tokens
            Texts of two or more characters; one that is a special or added token keeps its id.
        special
            Control tokens, which text gives only with ``parse_special``, and which ``decode``
            leaves out. False (byte-level BPE only): ``decode`` writes them.

        Raises
        ------
        ConfigError
            A text that cannot be a token, or is a piece of ordinary text already.

        Examples
        --------
        >>> Tokenizer.train(["to be or not to be"], "byte").add_tokens(["<|user|>", "<|bot|>"])
        [259, 260]
        """
        larger, ids = with_tokens(self.description, tokens, special)
        self.core, self.description = Tokenizer(larger).core, larger
        self._fingerprint = None
        return ids

    def encode(
        self, text: str, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Return the ids of a text.

        Special tokens written out in the text are plain text unless ``parse_special`` is true, so
        that data cannot smuggle in control tokens (``AutoTokenizer`` always reads them).
        ``add_bos`` and ``add_eos`` add a begin or end token unless the ids have it there already.
        """
        return _ids(self.core.encode, text, add_bos, add_eos, parse_special)

    def encode_dropped(self, text: str, dropout: float, key: int = 0) -> list[int]:
        """Return ids of a text with merges left out by chance (BPE-dropout, Provilkov et al. 2020).

        At each step every merge that is possible is left out with the probability ``dropout``: 0
        gives the usual ids, 1 single characters. Equal keys give equal ids. Kind ``"bpe"`` only.

        >>> tokenizer = Tokenizer.train(["to be or not to be"], "bpe")
        >>> tokenizer.decode(tokenizer.encode_dropped("to be", 0.5, key=7))
        'to be'
        """
        return _ids(self.core.encode_dropped, text, dropout, key)

    def encode_sampled(self, text: str, alpha: float, key: int = 0) -> list[int]:
        """Return ids drawn from all cuts of a text (subword regularisation, Kudo 2018).

        A cut is drawn with its probability by the unigram model to the power ``alpha``: 0 makes
        all cuts alike, 1 follows the model, more and more comes ever closer to the usual ids.
        Equal keys give equal ids. Kind ``"unigram"`` only.

        >>> tokenizer = Tokenizer.train(["to be or not to be"], "unigram")
        >>> tokenizer.decode(tokenizer.encode_sampled("to be", 0.2, key=7))
        'to be'
        """
        return _ids(self.core.encode_sampled, text, alpha, key)

    def encode_batch(
        self,
        texts: Sequence[str],
        threads: int = 0,
        add_bos: bool = False,
        add_eos: bool = False,
        parse_special: bool = False,
    ) -> list[NDArray[np.int32]]:
        """Return the ids of many texts, encoded on several threads (0: one a core)."""
        texts = list(texts)
        try:
            ids: list[NDArray[np.int32]] = self.core.encode_batch(
                texts, add_bos, add_eos, parse_special, threads
            )
        except UnicodeEncodeError as error:
            number = next((i for i, text in enumerate(texts) if text == error.object), 0)
            raise _surrogate(error, f"text {number}: ") from None
        return ids

    def decode(self, ids: ArrayLike, skip_special: bool = True, after: ArrayLike = ()) -> str:
        """Return the text of ids; broken UTF-8 becomes U+FFFD, special tokens are left out.

        A tokenizer that puts a space in front of a text (Llama 2's does) takes it away again where
        a text begins: at the first id, unless ``after`` gives the ids before. Behind ids that show
        a text the text goes on and keeps its space; only where encoding puts a space behind
        special tokens, too, does a text begin anew behind one.
        """
        text: str = self.core.decode(self._checked(ids), skip_special, self._checked(after))
        return text

    def pieces(self, ids: ArrayLike) -> list[str]:
        """Return each token as the vocabulary spells it: ``" the"``, ``"<0x0A>"``, ``"</s>"``."""
        return [self.description.pieces[i] for i in self._checked(ids)]

    def stream_decoder(self, skip_special: bool = True, after: ArrayLike = ()) -> StreamDecoder:
        """Return a decoder (``push(id)``, ``finish()``) that never splits a character.

        ``after`` are the ids before the stream, such as those of a prompt; see :meth:`decode`.
        """
        return StreamDecoder(self.core, skip_special, self._checked(after))

    def _checked(self, ids: ArrayLike) -> list[int]:
        array = np.asarray(ids)
        if array.size == 0:
            return []
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise DataError(
                f"token ids must be one row of whole numbers; got {array.dtype} of shape"
                f" {array.shape}"
            )
        outside = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if outside.size:
            position = int(outside[0])
            raise DataError(
                f"token id {array[position]} at position {position} is outside of the vocabulary of"
                f" {self.vocab_size} (0 to {self.vocab_size - 1}); is this the tokenizer of the"
                " model?"
            )
        checked: list[int] = array.tolist()
        return checked

    @property
    def kind(self) -> Kind:
        """``"bpe"``, ``"unigram"``, ``"char"``, ``"byte"`` or ``"word"``."""
        return self.description.kind

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.description.pieces)

    @property
    def bos_id(self) -> int | None:
        """Id of the begin token."""
        return self.description.bos

    @property
    def eos_id(self) -> int | None:
        """Id of the end token."""
        return self.description.eos

    @property
    def pad_id(self) -> int | None:
        """Id of the padding token, never that of the end."""
        return self.description.pad

    @property
    def unknown_id(self) -> int | None:
        """Id of the token for what is unknown; kinds ``"char"`` and ``"word"`` have one."""
        return self.description.unknown

    @property
    def special_tokens(self) -> dict[str, int]:
        """Every special token with its id."""
        return {
            self.description.pieces[i]: i
            for i, role in enumerate(self.description.roles)
            if role == ROLE_SPECIAL
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the files that say the ids (chat templates do not), in hexadecimal."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, content in files.serialize(self.description).items():
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer(kind={self.kind!r}, vocab_size={self.vocab_size})"


def _core_of(description: Description) -> _core.Tokenizer:
    pieces, marking = description.pieces, description.marking
    return _core.Tokenizer(
        algorithm=description.algorithm,
        pieces=pieces.stored if isinstance(pieces, StoredTexts) else _core.TextList(list(pieces)),
        roles=list(description.roles),
        merges=description.merges,
        scores=list(description.scores),
        unknown=description.unknown,
        bos=description.bos,
        eos=description.eos,
        pad=description.pad,
        pattern=description.pattern,
        whole_first=description.whole_first,
        nfc=description.nfc,
        fuse_unknown=description.fuse_unknown,
        marking=None if marking is None else _core.Marking(**asdict(marking)),
        found=[astuple(each) for each in description.found],
    )


def built(
    description: Description,
    where: object,
    templates: Templates | None = None,
    cls: type[Tokenizer] = Tokenizer,
) -> Tokenizer:
    """Return the tokenizer that was read somewhere; errors name the place."""
    try:
        return cls(description, templates)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{where}: {error}") from None


def _ids(encode: Callable[..., list[int]], text: str, *options: object) -> list[int]:
    try:
        return encode(text, *options)
    except UnicodeEncodeError as error:
        raise _surrogate(error, "") from None


def _surrogate(error: UnicodeEncodeError, where: str) -> DataError:
    return DataError(
        f"{where}invalid Unicode at position {error.start}: the character"
        f" {error.object[error.start]!r} is half of a"
        " surrogate pair; replace or remove it"
    )
