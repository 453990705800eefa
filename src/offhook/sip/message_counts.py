"""How many SIP messages came and went, by method and class. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["MessageCounts"]

_METHODS: Final = frozenset(
    {
        *("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "REFER", "NOTIFY", "UPDATE", "INFO"),
        *("PRACK", "SUBSCRIBE", "MESSAGE", "PUBLISH"),
    }
)
_OTHER: Final = "other"
_PING: Final = 4
"Bytes of a keep-alive."


class MessageCounts:
    """
    Counts messages as they stand on the wire, repeats included.

    It reads no more than the first line and CSeq, and takes a method that it does not know for `other`: what a peer
    writes there must not become a series of its own.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        "By direction (`in`, `out`) and method."
        self.responses: Counter[tuple[str, str, str]] = Counter()
        "By direction, method and class (`2xx`)."

    def count(self, direction: str, data: bytes) -> None:
        if len(data) <= _PING:
            return
        if data[:8].upper() != b"SIP/2.0 ":
            method = data[:16].partition(b" ")[0].decode("ascii", "replace")
            self.requests[direction, method if method in _METHODS else _OTHER] += 1
            return
        status = data[8:9].decode("ascii", "replace")
        kind = f"{status}xx" if status in "123456" and status else _OTHER
        self.responses[direction, _method_of(data), kind] += 1


def _method_of(data: bytes) -> str:
    """Return the method that CSeq names."""
    at = data.find(b"\nCSeq:")
    if at < 0:
        at = data.lower().find(b"\ncseq:")
    if at < 0:
        return _OTHER
    words = data[at + 6 : at + 60].partition(b"\r\n")[0].split()
    method = words[1].decode("ascii", "replace") if len(words) > 1 else _OTHER
    return method if method in _METHODS else _OTHER
