"""What a tokenizer learns from: every document read once, memory bounded, cut into lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from omnima.errors import DataError
from omnima.tokenizers.description import BYTE_PATTERN

# SentencePiece uses U+2581 for the space and U+2585 for the unknown character, and drops lines
# with a tab: text is cut at them and at every control character, so that no piece holds one and
# each falls back to its bytes.
_NEVER_IN_PIECES = r"[\x00-\x1f\x7f\u2581\u2585]"
_MAX_LINE_CHARACTERS = 4000
# Code keeps line ends, tabs and indentation: they are learnt from as symbols that nothing divides
# from each other (but letters), and stand for themselves in the pieces.
_HIDDEN = str.maketrans("\n\t ", "\u240a\u2409\u2420")
_SHOWN = str.maketrans("\u240a\u2409\u2420", "\n\t ")
_LAYOUT_RUN = re.compile(r"[\n\t](?:[\n\t ]*[\n\t])?(?: +)?|^ +")
_NEVER_IN_CODE = r"[\x00-\x08\x0b-\x1f\x7f\u2581\u2585\u2409\u240a\u2420]"


@dataclass
class Sample:
    """Lines kept for training, and what was seen in all."""

    lines: list[str] = field(default_factory=list)
    bytes: int = 0
    documents: int = 0
    alphabet: set[str] = field(default_factory=set)


def utf8_size(text: str, where: str) -> int:
    """Return the size of the text in UTF-8; DataError names the place of a lone surrogate."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: invalid Unicode at position {error.start}: the character"
            f" {text[error.start]!r} is half of a"
            " surrogate pair; read the text with errors='replace' or remove it"
        ) from None


def checked(documents: Iterable[str], sample: Sample) -> Iterator[str]:
    """Yield the documents, counted; DataError for what is no text, and for no text at all."""
    if isinstance(documents, str):
        documents = (documents,)
    for number, document in enumerate(documents):
        if not isinstance(document, str):
            raise DataError(
                f"document {number} of the corpus is {type(document).__name__}; expected str"
            )
        sample.bytes += utf8_size(document, f"document {number} of the corpus")
        sample.documents += 1
        yield document
    if sample.bytes == 0:
        raise DataError("the corpus is empty; a tokenizer needs some text to learn from")


def read_alphabet(documents: Iterable[str]) -> Sample:
    """Read every document and keep only its characters."""
    sample = Sample()
    for document in checked(documents, sample):
        sample.alphabet.update(document)
    return sample


def hide_layout(document: str) -> str:
    """Write line ends, tabs and the spaces behind them as symbols."""
    return _LAYOUT_RUN.sub(lambda run: run[0].translate(_HIDDEN), document)


def show_layout(piece: str) -> str:
    """Write the symbols of :func:`hide_layout` as what they stand for.

    >>> show_layout(hide_layout("def f():\\n    pass"))
    'def f():\\n    pass'
    """
    return piece.translate(_SHOWN)


def read_lines(
    documents: Iterable[str], specials: Sequence[str], max_bytes: int, code: bool = False
) -> Sample:
    """Read every document; when lines outgrow ``max_bytes``, keep each 2nd, 4th, 8th … of them.

    Of code, what is kept are stretches of many lines, with their layout as symbols.
    """
    names = "|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True))
    never = _NEVER_IN_CODE if code else _NEVER_IN_PIECES
    separator = re.compile(f"{never}|{BYTE_PATTERN.pattern}|{names}")
    sample = Sample()
    stride, count, kept = 1, 0, 0
    for document in checked(documents, sample):
        for line in separator.split(document):
            line = hide_layout(line) if code else line
            for start in range(0, len(line), _MAX_LINE_CHARACTERS):
                count += 1
                if count % stride:
                    continue
                part = line[start : start + _MAX_LINE_CHARACTERS]
                sample.lines.append(part)
                kept += len(part)
                if kept > max_bytes:
                    stride *= 2
                    sample.lines = sample.lines[1::2]
                    kept = sum(map(len, sample.lines))
    return sample
