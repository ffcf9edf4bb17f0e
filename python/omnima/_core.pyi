# Generated from the extension by tools/make_stubs.py (make stubs); do not edit.
"""
The C++ core of Omnima. Its public face is the package omnima.
"""
from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing
__all__: list[str] = ['StreamDecoder', 'Tokenizer', 'built_with_torch']
class Tokenizer:
    """
    Text to ids and back; the core behind omnima.Tokenizer.
    """
    def __init__(self, *, algorithm: str, pieces: collections.abc.Sequence[str], roles: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], merges: typing.Annotated[numpy.typing.ArrayLike, numpy.uint32], scores: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex], unknown: typing.SupportsInt | typing.SupportsIndex | None = None, bos: typing.SupportsInt | typing.SupportsIndex | None = None, eos: typing.SupportsInt | typing.SupportsIndex | None = None, pad: typing.SupportsInt | typing.SupportsIndex | None = None) -> None:
        """
        Build from pieces (their order gives the ids), roles (0 text, 1 byte, 2 special), and merges (rows of left, right, result) or scores.
        """
    def __len__(self) -> int:
        ...
    def decode(self, ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], skip_special: bool = True) -> str:
        """
        Text of ids; broken UTF-8 is U+FFFD.
        """
    def encode(self, text: str, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False) -> list[int]:
        """
        Ids of one text.
        """
    def encode_batch(self, texts: list, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False, threads: typing.SupportsInt | typing.SupportsIndex = 0) -> list:
        """
        Ids of many texts as int32 arrays, on several threads (0: one a core).
        """
    def piece(self, id: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        The token as the vocabulary spells it.
        """
class StreamDecoder:
    """
    Ids to text one by one, never splitting a character.
    """
    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        ...
    def finish(self) -> str:
        """
        What was held back; unfinished bytes are U+FFFD.
        """
    def push(self, id: typing.SupportsInt | typing.SupportsIndex) -> str:
        """
        The text that this token completes.
        """
built_with_torch: str = ...
