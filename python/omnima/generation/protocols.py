"""What generation asks of a model and of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from omnima._core import Engine


class StreamDecoder(Protocol):
    """Turns ids into text one by one, and holds back the bytes of unfinished characters."""

    def push(self, id: int, /) -> str: ...

    def finish(self) -> str: ...


class TextCodec(Protocol):
    """The part of :class:`omnima.Tokenizer` that generation uses."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int | None: ...

    def encode(self, text: str, add_bos: bool = False) -> Sequence[int]: ...

    def stream_decoder(self, *, after: Sequence[int] = ()) -> StreamDecoder: ...


class LanguageModel(Protocol):
    """The part of :class:`omnima.Model` that generation uses."""

    @property
    def engine(self) -> Engine: ...
