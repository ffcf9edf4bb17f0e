"""A sequence's text as its tokens come: whole characters only, and never a stop string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omnima.errors import ConfigError
from omnima.generation.protocols import StreamDecoder


class TextAssembler:
    """Gathers decoded pieces and releases what can no longer turn into a stop string.

    Parameters
    ----------
    decoder
        Turns ids into text that never splits a character.
    stop
        Texts that end the sequence; the text is cut before the first of them.
    """

    def __init__(self, decoder: StreamDecoder, stop: Sequence[str]) -> None:
        self._decoder = decoder
        self._stop = stop
        self._held = ""
        self._released: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All the text that was released."""
        return "".join(self._released)

    def push(self, token: int) -> str:
        """Take the next token; return the text that it releases."""
        return self._take(self._decoder.push(token))

    def take(self, tokens: Iterable[int]) -> None:
        """Take all tokens of a sequence at once, where there is no stop string to look for."""
        self._released.append("".join([self._decoder.push(token) for token in tokens]))

    def finish(self) -> str:
        """Return what is still held, when no more tokens come."""
        released = self._take(self._decoder.finish())
        return released + ("" if self.stopped else self._release(len(self._held)))

    def _take(self, piece: str) -> str:
        if self.stopped:
            return ""
        self._held += piece
        found = [at for at in (self._held.find(word) for word in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._unsure())

    def _unsure(self) -> int:
        """Return the length of the longest end that is the beginning of a stop string."""
        longest = max((len(word) for word in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-length:]) for word in self._stop):
                return length
        return 0

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        self._released.append(released)
        return released


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Return the stop strings as a tuple; ConfigError when one is empty or no text."""
    words = (stop,) if isinstance(stop, str) else tuple(stop)
    for word in words:
        if not isinstance(word, str) or not word:
            raise ConfigError(f"stop holds {word!r}, but a stop string is text that is not empty.")
    return words
