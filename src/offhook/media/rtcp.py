"""RTCP packets: reports, descriptions, goodbyes (RFC 3550 section 6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "NTP_EPOCH",
    "Goodbye",
    "Packet",
    "ReceiverReport",
    "ReportBlock",
    "RtcpError",
    "SenderReport",
    "SourceDescription",
    "Unknown",
    "goodbye",
    "middle_of",
    "ntp_time",
    "parse_compound",
]

NTP_EPOCH: Final = 2_208_988_800
"""Seconds from 1900 to 1970: NTP time stamps count from the former, clocks from the latter."""

_HEADER: Final = struct.Struct("!BBH")
_ALONE: Final = struct.Struct("!BBHI")
"""A packet that has nothing but its source."""
_SENDER: Final = struct.Struct("!IQIII")
_BLOCK: Final = struct.Struct("!IIIIII")
_WORD: Final = struct.Struct("!I")

SR: Final = 200
RR: Final = 201
SDES: Final = 202
BYE: Final = 203


class RtcpError(ValueError):
    """The datagram is no RTCP packet; the message says what is wrong."""


def ntp_time(wall: float) -> int:
    """Return seconds since 1970 as a 64-bit NTP time stamp (section 4)."""
    return int((wall + NTP_EPOCH) * 2**32) & 0xFFFFFFFFFFFFFFFF


def middle_of(ntp: int) -> int:
    """Return the middle 32 bits of an NTP time stamp: units of 1/65536 s."""
    return ntp >> 16 & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What a receiver says about one source (section 6.4.1)."""

    ssrc: int
    fraction_lost: int
    "Since the last report, in 1/256."
    cumulative_lost: int
    "Signed, 24 bits: duplicates can make it negative."
    highest_sequence: int
    "With the count of wraps in the upper 16 bits."
    jitter: int
    "In units of the RTP clock."
    last_sr: int
    "The middle 32 bits of the NTP time of the last SR from that source; 0 when none came."
    delay_since_last_sr: int
    "In 1/65536 s."

    @classmethod
    def unpack(cls, data: bytes, at: int) -> ReportBlock:
        ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(data, at)
        cumulative = loss & 0xFFFFFF
        if cumulative & 0x800000:
            cumulative -= 0x1000000
        return cls(ssrc, loss >> 24, cumulative, highest, jitter, last_sr, delay)

    def __bytes__(self) -> bytes:
        cumulative = max(-0x800000, min(0x7FFFFF, self.cumulative_lost)) & 0xFFFFFF
        return _BLOCK.pack(
            self.ssrc,
            (self.fraction_lost & 0xFF) << 24 | cumulative,
            self.highest_sequence & 0xFFFFFFFF,
            min(self.jitter, 0xFFFFFFFF),
            self.last_sr,
            min(self.delay_since_last_sr, 0xFFFFFFFF),
        )


@dataclass(frozen=True, slots=True)
class SenderReport:
    ssrc: int
    ntp: int
    rtp_timestamp: int
    "The same instant as `ntp`, on the clock of the RTP packets."
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()

    @classmethod
    def unpack(cls, body: bytes, count: int) -> SenderReport:
        blocks = _blocks(body, _SENDER.size, count)
        ssrc, ntp, rtp_timestamp, packets, octets = _SENDER.unpack_from(body)
        return cls(ssrc, ntp, rtp_timestamp, packets, octets, blocks)

    def __bytes__(self) -> bytes:
        sender = _SENDER.pack(
            self.ssrc, self.ntp, self.rtp_timestamp, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF
        )
        return _packet(SR, len(self.blocks), sender + b"".join(map(bytes, self.blocks)))


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()

    @classmethod
    def unpack(cls, body: bytes, count: int) -> ReceiverReport:
        blocks = _blocks(body, 4, count)
        return cls(_WORD.unpack_from(body)[0], blocks)

    def __bytes__(self) -> bytes:
        return _packet(RR, len(self.blocks), _WORD.pack(self.ssrc) + b"".join(map(bytes, self.blocks)))


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """One source's items (section 6.5), as (type, text); type 1 is the CNAME."""

    ssrc: int
    items: tuple[tuple[int, bytes], ...]

    @classmethod
    def unpack(cls, body: bytes, count: int) -> SourceDescription:
        """Parse the first chunk; further ones are of mixers, which telephones are not."""
        if not count:
            return cls(0, ())
        if len(body) < 4:
            raise RtcpError("SDES: cut short")
        items, at = [], 4
        while at < len(body) and body[at]:
            if at + 2 > len(body) or at + 2 + body[at + 1] > len(body):
                raise RtcpError("SDES: an item runs over the end")
            end = at + 2 + body[at + 1]
            items.append((body[at], body[at + 2 : end]))
            at = end
        return cls(_WORD.unpack_from(body)[0], tuple(items))

    def __bytes__(self) -> bytes:
        chunk = _WORD.pack(self.ssrc) + b"".join(bytes((kind, len(text))) + text for kind, text in self.items)
        # At least one null octet ends the list, and fills the word.
        return _packet(SDES, 1, chunk + bytes(4 - len(chunk) % 4))


@dataclass(frozen=True, slots=True)
class Goodbye:
    sources: tuple[int, ...]
    reason: str = ""

    @classmethod
    def unpack(cls, body: bytes, count: int) -> Goodbye:
        if len(body) < 4 * count:
            raise RtcpError("BYE: cut short")
        rest = body[4 * count :]
        text = rest[1 : 1 + rest[0]] if rest else b""
        return cls(struct.unpack_from(f"!{count}I", body), text.decode("utf-8", "replace"))

    def __bytes__(self) -> bytes:
        body = struct.pack(f"!{len(self.sources)}I", *self.sources)
        if self.reason:
            text = self.reason.encode()[:255]
            body += bytes((len(text),)) + text
            body += bytes(-len(body) % 4)
        return _packet(BYE, len(self.sources), body)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A packet of a type that we have no use for: APP, feedback, extended reports."""

    packet_type: int
    body: bytes


Packet = SenderReport | ReceiverReport | SourceDescription | Goodbye | Unknown


def parse_compound(data: bytes) -> list[Packet]:
    """
    Parse the packets of one datagram, in order.

    Raises `RtcpError` for anything that is not made of whole packets of version 2. A compound that starts with
    something else than a report is taken: peers send bare BYEs.
    """
    packets: list[Packet] = []
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise RtcpError("cut short in a header")
        first, packet_type, words = _HEADER.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first & 0xC0 != 0x80:
            raise RtcpError(f"version {first >> 6}, want 2")
        if end > len(data):
            raise RtcpError(f"packet type {packet_type}: length runs over the end")
        body = data[at + 4 : end]
        if first & 0x20:
            if not body or not 0 < body[-1] <= len(body):
                raise RtcpError(f"packet type {packet_type}: bad padding")
            body = body[: -body[-1]]
        packets.append(_unpack(packet_type, body, first & 0x1F))
        at = end
    return packets


def _unpack(packet_type: int, body: bytes, count: int) -> Packet:
    if packet_type == SR:
        return SenderReport.unpack(body, count)
    if packet_type == RR:
        return ReceiverReport.unpack(body, count)
    if packet_type == SDES:
        return SourceDescription.unpack(body, count)
    if packet_type == BYE:
        return Goodbye.unpack(body, count)
    return Unknown(packet_type, body)


def _blocks(body: bytes, at: int, count: int) -> tuple[ReportBlock, ...]:
    if len(body) < at + _BLOCK.size * count:
        raise RtcpError(f"cut short: {count} report blocks announced")
    return tuple(ReportBlock.unpack(body, at + _BLOCK.size * index) for index in range(count))


def goodbye(ssrc: int, description: bytes) -> bytes:
    """Return a source's last compound: an empty RR, its description as it stands (SDES), and a BYE."""
    return _ALONE.pack(0x80, RR, 1, ssrc) + description + _ALONE.pack(0x81, BYE, 1, ssrc)


def _packet(packet_type: int, count: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, packet_type, len(body) // 4) + body
