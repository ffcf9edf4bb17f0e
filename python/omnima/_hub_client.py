"""The package huggingface_hub, opened when it is needed, and its errors in words of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from omnima.errors import ConfigError, OmnimaError

_ACCESS = (
    "Log in with `hf auth login`, or put a token that may {may} it into the environment variable "
    "HF_TOKEN."
)


def library(what: str) -> Any:
    """Return huggingface_hub; `what` needs it.

    Raises
    ------
    OmnimaError
        It is not installed: says how to.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise OmnimaError(
            f'{what} needs huggingface_hub: pip install "omnima[hub]" '
            "(or pip install huggingface_hub)."
        ) from error
    return huggingface_hub


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says so; asked anew each time, for older versions keep sessions."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def in_our_words(name: str, may: str = "read") -> Iterator[None]:
    """Turn what huggingface_hub raises about a repository into one message.

    Parameters
    ----------
    name
        The repository, as the user wrote it.
    may
        What was to be done with it: "read" or "write".
    """
    from huggingface_hub import constants, errors

    repository = "/".join(name.partition("@")[0].split("/")[:2])
    where = f"{constants.ENDPOINT}/{repository}"
    access = _ACCESS.format(may=may)
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{name} is gated: its owner lets in who has accepted its terms. Accept them at "
            f"{where}. {access}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(
            f"{name}: the hub has no such revision. Give a branch, a tag or a commit."
        ) from error
    except errors.RepositoryNotFoundError as error:
        here = "neither a directory or file here nor" if may == "read" else "not"
        raise ConfigError(
            f"{name} is {here} a repository on the hub ({constants.ENDPOINT}) that you may {may}. "
            f"Check the spelling. If it is private: {access}"
        ) from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{name} is no name that the hub takes: {_words(error)}.") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise _unreachable(name, may, error) from error
    except errors.HfHubHTTPError as error:
        raise _refused(name, error, access) from error
    except (_http_error(errors), OSError) as error:  # no connection, no answer in time, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise _unreachable(name, may, error) from error


def _http_error(errors: Any) -> type[Exception]:
    """What the HTTP library raises: huggingface_hub has changed it twice."""
    base: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return base


def _unreachable(name: str, may: str, error: Exception) -> OmnimaError:
    from huggingface_hub import constants

    if may == "write":
        offline = ", as HF_HUB_OFFLINE says" if constants.HF_HUB_OFFLINE else ""
        return OmnimaError(
            f"{name}: the hub ({constants.ENDPOINT}) cannot be reached{offline}: {_words(error)}. "
            "The model has not been uploaded."
        )
    if constants.HF_HUB_OFFLINE:
        return OmnimaError(
            f"{name} is not, or not wholly, in the cache ({constants.HF_HUB_CACHE}), and "
            "HF_HUB_OFFLINE forbids to ask the hub. Fetch it once without HF_HUB_OFFLINE, or give "
            "a directory."
        )
    return OmnimaError(
        f"{name} is neither a directory or file here nor in the cache ({constants.HF_HUB_CACHE}), "
        f"and the hub ({constants.ENDPOINT}) cannot be reached: {_words(error)}. Check the "
        "connection, or the name if you meant a directory."
    )


def _refused(name: str, error: Any, access: str) -> OmnimaError:
    status = error.response.status_code
    said = _words(error.server_message) if error.server_message else _words(error)
    if status in (401, 403):
        return ConfigError(f"{name}: the hub refuses ({status}: {said}). {access}")
    return OmnimaError(f"{name}: the hub answers {status}: {said}.")


def _words(error: object) -> str:
    """What an error says, short, on one line and without the token of this machine."""
    from huggingface_hub import get_token

    text, token = " ".join(str(error).split()), get_token()
    if token:
        text = text.replace(token, "(token)")
    return text[:300].rstrip(".") or type(error).__name__
