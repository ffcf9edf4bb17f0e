"""API keys: a file with a line a key, which holds salted hashes and never a key."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from omnima.errors import ConfigError, DataError

_SCHEME = "sha256"


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key.

    A key has 256 random bits, so that one round of SHA-256 is enough to keep it.
    """

    name: str
    salt: bytes
    digest: bytes

    def fits(self, key: bytes) -> bool:
        """Whether it is this key, in a time that does not tell how much of it fits."""
        return hmac.compare_digest(_digest(self.salt, key), self.digest)


class ApiKeys:
    """The keys of a server.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "keys"
    >>> key = new_key(file, "anna")
    >>> ApiKeys.read(file).name_of(key)
    'anna'
    >>> ApiKeys.read(file).name_of("another") is None
    True
    """

    def __init__(self, keys: list[ApiKey]) -> None:
        self._keys = keys

    @classmethod
    def read(cls, path: str | Path) -> ApiKeys:
        """Read a file that :func:`new_key` wrote.

        Raises
        ------
        DataError
            A file that cannot be read, holds no key, or a line (named) that is none.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The API keys {path} cannot be read: {error}.") from None
        keys = [
            _parsed(line, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")
        ]
        if not keys:
            raise DataError(f"{path} holds no API key: make one with `omnima api-key {path}`.")
        return cls(keys)

    def name_of(self, key: str) -> str | None:
        """Return the name of a key; None: it is none of these. All are compared, always."""
        given = key.encode("utf-8", "surrogatepass")
        found = None
        for each in self._keys:
            if each.fits(given):
                found = each.name
        return found


def new_key(path: str | Path, name: str) -> str:
    """Make a key, add its hash to a file (made for the owner alone), and return it.

    Raises
    ------
    ConfigError
        A name with anything but letters, digits, ``-``, ``_`` and ``.``, or one that is taken.
    DataError
        The file is there and holds something else.
    """
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) is None:
        raise ConfigError(f"A key's name has letters, digits, -, _ and . only; got {name!r:.80}.")
    where = Path(path)
    if where.exists() and where.stat().st_size:
        if any(each.name == name for each in ApiKeys.read(where)._keys):
            raise ConfigError(f"{where} has a key of the name {name} already.")
    key, salt = "om-" + secrets.token_urlsafe(32), secrets.token_bytes(16)
    line = f"{name} {_SCHEME} {salt.hex()} {_digest(salt, key.encode()).hex()}\n"
    handle = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, False, True)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def foreign_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Say which header of a request shows that it comes from a page of another site, or by another
    name that stands for this machine; None: it comes from here.

    >>> foreign_header([(b"host", b"127.0.0.1:8000"), (b"origin", b"https://evil.example")])
    "Origin is 'https://evil.example'"
    """
    for name, value in headers:
        if name not in (b"host", b"origin"):
            continue
        said = value.decode("latin-1")
        try:
            host = urlsplit(said if name == b"origin" else f"//{said}").hostname
        except ValueError:
            host = None
        if not is_loopback(host or ""):
            return f"{name.decode().title()} is {said!r:.80}"
    return None


def _digest(salt: bytes, key: bytes) -> bytes:
    return hashlib.sha256(salt + key).digest()


def _parsed(line: str, where: str) -> ApiKey:
    parts = line.split()
    try:
        name, scheme, salt, digest = parts
        found = ApiKey(name, bytes.fromhex(salt), bytes.fromhex(digest))
    except ValueError:
        found, scheme = None, ""
    if found is None or scheme != _SCHEME or len(found.digest) != 32:
        raise DataError(f"{where}: a line is a name, {_SCHEME}, a salt and a hash.")
    return found
