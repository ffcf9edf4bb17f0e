"""What goes wrong with a request, in the form that clients of OpenAI's interface read."""

from __future__ import annotations

import json

from omnima.errors import ConfigError, DataError, OmnimaError

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    503: "unavailable_error",
    504: "timeout_error",
}


class RequestError(OmnimaError):
    """A request that is not answered; says why, and in which field.

    Parameters
    ----------
    message
        Names the field, its value and what was expected.
    status
        The HTTP status.
    param
        The field, such as ``messages.0.content``.
    code
        A word for programs.
    retry_after
        Seconds after which it may go better.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """The ``type`` of the error's body."""
        usual = "invalid_request_error" if self.status < 500 else "server_error"
        return _KINDS.get(self.status, usual)

    def body(self) -> bytes:
        """The error as JSON."""
        about = {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": about}, ensure_ascii=True).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer's head says beside the length."""
        found = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, round(self.retry_after))).encode()))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found


def as_request_error(error: BaseException, param: str | None = None) -> RequestError:
    """What an error of ours means to a client; others are the server's own, and say nothing.

    >>> as_request_error(KeyError("secret")).status
    500
    """
    from omnima.errors import QueueFullError

    if isinstance(error, RequestError):
        return error
    if isinstance(error, QueueFullError):
        return RequestError(
            "The server has as many requests as it takes: try again later.",
            429,
            code="queue_full",
            retry_after=1,
        )
    if isinstance(error, (ConfigError, DataError)):
        return RequestError(f"{param}: {error}" if param else str(error), 400, param)
    return RequestError("The server failed at this request; its log says more.", 500)


def shutting_down() -> RequestError:
    """The server writes what has begun, and takes no more."""
    return RequestError("The server is shutting down.", 503, code="shutting_down", retry_after=5)


def engine_away() -> RequestError:
    """The engine has died, or starts."""
    return RequestError(
        "The engine is away and is being started again.", 503, code="engine_away", retry_after=5
    )
