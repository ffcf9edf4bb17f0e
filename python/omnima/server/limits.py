"""What one request, one key and all of them together may ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from omnima.errors import ConfigError
from omnima.server.errors import RequestError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; a request beyond one is an error that names it.

    Attributes
    ----------
    body_bytes
        Of a request's body.
    prompts, n, choices
        Prompts of a request, texts for each, and texts in all.
    max_tokens
        New tokens of a text; 0: as many as the context holds.
    stop_strings, stop_characters
        Stop strings of a request, and characters of each.
    messages, tools
        Of a conversation.
    inputs
        Texts of a request for embeddings.
    request_seconds
        After which a request is ended.
    head_bytes, head_seconds
        Of a request's head, and in which it must come.
    body_seconds
        In which a request's body must come, or the message of a call of gRPC.
    slow_reader_characters, slow_reader_seconds
        What may wait for a client who does not read, and how long.
    requests_per_minute
        Of each API key (without keys: of all together); 0: as many as they like.
    connections
        Open at once.
    """

    body_bytes: int = 2 << 20
    prompts: int = 32
    n: int = 16
    choices: int = 64
    max_tokens: int = 0
    stop_strings: int = 16
    stop_characters: int = 256
    messages: int = 1024
    tools: int = 128
    inputs: int = 128
    request_seconds: float = 600.0
    head_bytes: int = 1 << 16
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    slow_reader_characters: int = 1 << 16
    slow_reader_seconds: float = 30.0
    requests_per_minute: int = 0
    connections: int = 1024

    def __post_init__(self) -> None:
        may_be_zero = {"max_tokens", "requests_per_minute"}
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name not in may_be_zero):
                raise ConfigError(f"The limit {name} is {value}, but it must be greater than 0.")

    def check(self, name: str, count: int, most: int, what: str) -> None:
        """RequestError where a field asks for more than there is.

        >>> Limits().check("n", 3, 16, "texts")
        """
        if count > most:
            raise RequestError(
                f"{name} asks for {count} {what}; the limit is {most}.", param=name, code="limit"
            )


class RateLimiter:
    """Counts the requests of each key: as many a minute as allowed, some of them at once.

    >>> limiter = RateLimiter(60)
    >>> limiter.wait("anna", now=0.0), limiter.wait("anna", now=0.0)
    (0.0, 0.0)
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._burst = max(1.0, per_minute / 6)
        self._left: dict[str, tuple[float, float]] = {}  # by key: requests, and when that was

    def wait(self, key: str, now: float | None = None) -> float:
        """Count a request; return 0, or the seconds after which the next one is allowed."""
        if not self._rate:
            return 0.0
        now = time.monotonic() if now is None else now
        left, then = self._left.get(key, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1
        self._left[key] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) / self._rate
