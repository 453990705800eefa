"""
How the node and its workers talk: messages on a stream socket.

::

    0        4        8
    +--------+--------+----------------+------------+
    | header | body   | header (JSON)  | body       |
    | length | length |                | (bytes)    |
    +--------+--------+----------------+------------+

Lengths are little-endian. Both ends are processes of one node and one version, so nothing here guards against a peer
that lies.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

__all__ = ["Decoder", "Message", "encode"]

_LENGTHS = struct.Struct("<II")


class Message(NamedTuple):
    header: dict[str, Any]
    "Always has `type`; messages about a job have `job`."
    body: bytes


def encode(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return the message's bytes."""
    head = orjson.dumps(header)
    return b"".join((_LENGTHS.pack(len(head), len(body)), head, body))


class Decoder:
    """Turns a stream of bytes back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[Message]:
        """Take what the socket gave, in pieces of any size; return the messages that are now whole."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(self._buffer, start)
            middle = start + _LENGTHS.size + head
            end = middle + body
            if len(self._buffer) < end:
                break
            header = orjson.loads(self._buffer[start + _LENGTHS.size : middle])
            messages.append(Message(header, bytes(self._buffer[middle:end])))
            start = end
        del self._buffer[:start]
        return messages
