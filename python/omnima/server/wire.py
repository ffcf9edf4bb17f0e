"""Messages between the server and an engine in another process: JSON behind its length.

Nothing is unpickled, and one message carries all that a step has brought.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<I")
_LARGEST = 256 << 20


def packed(message: Any) -> bytes:
    """A message as bytes.

    >>> packed([1])
    b'\\x03\\x00\\x00\\x00[1]'
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Takes bytes as they come, and gives whole messages.

    >>> unpacker = Unpacker()
    >>> unpacker.feed(packed("a")[:3]), unpacker.feed(packed("a")[3:] + packed("b"))
    ([], ['a', 'b'])
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Return the messages that these bytes complete; ValueError: they are none."""
        self._held += data
        found = []
        while len(self._held) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._held)
            if size > _LARGEST:
                raise ValueError(f"a message of {size} bytes")
            end = _LENGTH.size + size
            if len(self._held) < end:
                break
            found.append(json.loads(bytes(self._held[_LENGTH.size : end])))
            del self._held[:end]
        return found


def read_messages(channel: socket.socket) -> Any:
    """Yield messages until the other side has gone."""
    unpacker = Unpacker()
    while True:
        try:
            data = channel.recv(1 << 16)
        except ConnectionError:
            return
        if not data:
            return
        yield from unpacker.feed(data)
