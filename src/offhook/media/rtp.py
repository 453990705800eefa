"""
RTP packets (RFC 3550 section 5.1).

The hot path in `offhook.media.stream` unpacks `HEADER` itself and comes here only for packets that have more than
the plain header; `RtpPacket` is for everything that may take its time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["HEADER", "HEADER_SIZE", "PLAIN", "RtpError", "RtpPacket", "is_rtcp", "payload_of"]

#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |V=2|P|X|  CC   |M|     PT      |       sequence number         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                           timestamp                           |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |           synchronization source (SSRC) identifier            |
# +=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
HEADER: Final = struct.Struct("!BBHII")
HEADER_SIZE: Final = HEADER.size

PLAIN: Final = 0x80
"""The first octet of a packet with no padding, no extension and no contributing sources."""

_EXTENSION: Final = struct.Struct("!HH")


class RtpError(ValueError):
    """The datagram is no RTP packet; the message says what is wrong."""


def payload_of(data: bytes) -> bytes:
    """Return the payload of a packet of any shape. Raises `RtpError` when it is none or is cut short."""
    return data[slice(*_payload_bounds(data))]


def is_rtcp(data: bytes) -> bool:
    """Return whether a datagram is RTCP by its second octet (RFC 5761 section 4)."""
    return len(data) >= 8 and data[0] & 0xC0 == PLAIN and 192 <= data[1] <= 223


def _payload_bounds(data: bytes) -> tuple[int, int]:
    if len(data) < HEADER_SIZE:
        raise RtpError(f"{len(data)} bytes are no RTP header")
    first = data[0]
    if first & 0xC0 != PLAIN:
        raise RtpError(f"version {first >> 6}, want 2")
    start = HEADER_SIZE + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            raise RtpError("cut short in the header extension")
        start += 4 + 4 * int(_EXTENSION.unpack_from(data, start)[1])
    end = len(data)
    if start > end:
        raise RtpError("cut short in the header")
    if first & 0x20:
        # The last octet counts the padding, itself included (RFC 3550 section 5.1).
        padding = data[-1]
        if not 0 < padding <= end - start:
            raise RtpError(f"padding of {padding} in a payload of {end - start}")
        end -= padding
    return start, end


@dataclass(frozen=True, slots=True)
class RtpPacket:
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False
    csrc: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    "The profile's number and the data, whole words (section 5.3.1)."

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket:
        """Parse a packet; padding is dropped. Raises `RtpError`."""
        start, end = _payload_bounds(data)
        first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        count = first & 0x0F
        at = HEADER_SIZE + 4 * count
        extension = None
        if first & 0x10:
            extension = (_EXTENSION.unpack_from(data, at)[0], data[at + 4 : start])
        return cls(
            payload_type=second & 0x7F,
            sequence=sequence,
            timestamp=timestamp,
            ssrc=ssrc,
            payload=data[start:end],
            marker=bool(second & 0x80),
            csrc=struct.unpack_from(f"!{count}I", data, HEADER_SIZE),
            extension=extension,
        )

    def __bytes__(self) -> bytes:
        first = PLAIN | len(self.csrc) | (0x10 if self.extension is not None else 0)
        second = self.payload_type | (0x80 if self.marker else 0)
        parts = [HEADER.pack(first, second, self.sequence, self.timestamp, self.ssrc)]
        parts.append(struct.pack(f"!{len(self.csrc)}I", *self.csrc))
        if self.extension is not None:
            profile, words = self.extension
            parts.append(_EXTENSION.pack(profile, len(words) // 4) + words)
        return b"".join(parts) + self.payload
