"""
Cutting a TCP or TLS stream into SIP messages (RFC 3261 section 18.3, RFC 5626 section 3.5.1).

Nothing here reads a socket. Feed what was received, take the frames. One framer serves one connection.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from .message import MAX_MESSAGE, MessageError, create_response, parse_message

__all__ = ["Frame", "FramingError", "KeepAlive", "MessageFrame", "StreamFramer"]


@dataclass(frozen=True, slots=True)
class MessageFrame:
    """The bytes of one message, for `parse_message`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The peer sent CRLF CRLF, or many of them at once: answer with one CRLF."""


Frame = MessageFrame | KeepAlive

_PINGS = re.compile(rb"(?:\r\n\r\n)+")


class FramingError(Exception):
    """
    Where the next message begins can no longer be told: the connection must be closed.

    `frames` came before the fault and are still good. `answer`, if not `None`, is to be sent before closing.
    """

    def __init__(self, text: str, *, answer: bytes | None, frames: list[Frame]) -> None:
        super().__init__(text)
        self.answer = answer
        self.frames = frames


class StreamFramer:
    """Frames for one connection. After a `FramingError` it takes nothing more."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        "How much of the buffer was searched for the end of the headers."
        self._needed = 0
        "The length of the message whose headers are complete, or 0."

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._buffer)

    def receive_data(self, data: bytes) -> list[Frame]:
        """
        Take what the connection gave and return what is complete, in order. Raises `FramingError`.

        A lone CRLF that ends `data` between messages is the answer to a ping of ours and is dropped.
        """
        self._buffer += data
        frames: list[Frame] = []
        try:
            while frame := self._next_frame():
                frames.append(frame)
        except _FaultError as fault:
            head = bytes(self._buffer[:MAX_MESSAGE])
            self._buffer.clear()
            self._searched = self._needed = 0
            raise FramingError(fault.text, answer=_answer(head, fault), frames=frames) from None
        return frames

    def _next_frame(self) -> Frame | None:
        if not self._needed:
            if self._skip_line_breaks():
                return KeepAlive()
            self._needed = self._measure()
        if not self._needed or len(self._buffer) < self._needed:
            return None
        data = bytes(self._buffer[: self._needed])
        del self._buffer[: self._needed]
        self._searched = self._needed = 0
        return MessageFrame(data)

    def _skip_line_breaks(self) -> bool:
        """Drop the line breaks between messages; tell whether they were a ping."""
        if pings := _PINGS.match(self._buffer):
            del self._buffer[: pings.end()]
            return True
        if self._buffer.startswith(b"\r\n") and self._buffer != b"\r\n\r":
            del self._buffer[:2]
        return False

    def _measure(self) -> int:
        """Return the length of the first message, or 0 while its headers are not complete."""
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(self._buffer)
        if end < 0:
            if len(self._buffer) > MAX_MESSAGE:
                raise _FaultError(f"headers of more than {MAX_MESSAGE} bytes", 513)
            return 0
        length = end + 4 + _content_length(bytes(self._buffer[:end]))
        if length > MAX_MESSAGE:
            raise _FaultError(f"message of more than {MAX_MESSAGE} bytes", 513)
        return length


class _FaultError(Exception):
    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def _content_length(head: bytes) -> int:
    values = []
    lines = head.split(b"\r\n")
    for at, line in enumerate(lines):
        if line[:1] in b"lLcC" and line:
            name, _, value = line.partition(b":")
            if name.rstrip(b" \t").lower() in (b"content-length", b"l"):
                values.append(value + _folded(lines, at + 1))
    if len(values) != 1:
        raise _FaultError(
            "Content-Length: more than one" if values else "Content-Length: missing on a stream"
        )
    digits = values[0].strip(b" \t")
    if not digits.isdigit():
        raise _FaultError("Content-Length: not a number of decimal digits")
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > 9:
        raise _FaultError(f"message of more than {MAX_MESSAGE} bytes", 513)
    return int(digits)


def _folded(lines: list[bytes], at: int) -> bytes:
    more = b""
    while at < len(lines) and lines[at][:1] in (b" ", b"\t"):
        more += b" " + lines[at].strip(b" \t")
        at += 1
    return more


def _answer(head: bytes, fault: _FaultError) -> bytes | None:
    """Return the response to a request that cannot be framed, if enough of it can be read."""
    end = head.find(b"\r\n\r\n")
    # Cut to complete lines and without its empty line, it always raises, with what could be read.
    complete = head[:end] if end >= 0 else head[: max(0, head.rfind(b"\r\n"))]
    try:
        parse_message(complete)
    except MessageError as error:
        if error.request:
            # A stateless answer takes a tag that the same request would get again (RFC 3261 section 8.2.7).
            return bytes(create_response(error.request, fault.status, to_tag=f"{zlib.crc32(head):08x}"))
    return None
