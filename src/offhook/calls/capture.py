"""
A call's SIP messages as a capture file that Wireshark, tshark and sngrep open. Pure.

Classic pcap, microseconds, link type RAW (101): each packet begins with its IP header. What was kept of a call are its
messages, not its packets, so the headers are made here: real addresses, ports and times; UDP as it was, TCP with the
right sequence numbers but no handshake. What went by TLS is shown as TCP in the clear, since the messages are known and
the keys are nobody's. What is not in the file says a first packet, a syslog line from and to port 514.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["NOT_INCLUDED", "capture"]

NOT_INCLUDED: Final = (
    "SIP only. Not in this file: RTP and RTCP (Offhook keeps no packets of sound), keys of SRTP and TLS (not kept), "
    "digest credentials and a=crypto keys (redacted in the messages; Content-Length is made to fit)"
)

_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101)
_RECORD: Final = struct.Struct("<IIII")
_UDP, _TCP = 17, 6
_MAX_UDP = 65_507 - 20
_MAX_SEGMENT = 60_000
_SYSLOG = 514
_LENGTH: Final = re.compile(rb"^(Content-Length|l)([ \t]*:[ \t]*)\d{1,10}[ \t]*(?=\r?$)", re.I | re.M)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_End = tuple[_Address, int]


@dataclass(slots=True)
class _Streams:
    """Where the bytes of each TCP connection stand, for each direction."""

    sent: dict[tuple[_End, _End], int] = field(default_factory=dict)

    def send(self, source: _End, target: _End, length: int) -> tuple[int, int]:
        """Return the sequence and acknowledgement numbers of so many bytes."""
        sequence, acknowledged = self.sent.get((source, target), 1), self.sent.get((target, source), 1)
        self.sent[source, target] = sequence + length
        return sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF


def capture(timeline: Mapping[str, Any]) -> bytes:
    """Return the file for a body of `GET /v1/realtime/calls/{id}/timeline`. A call without SIP has its note alone."""
    streams = _Streams()
    packets = [packet for entry in _messages(timeline) for packet in _packets(entry, streams)]
    start = packets[0][0] if packets else _seconds(timeline.get("started_at"))
    return b"".join((_HEADER, _record(start, _note(timeline)), *(_record(*packet) for packet in packets)))


def _messages(timeline: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = timeline.get("data")
    found = [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
    return [e for e in found if e.get("kind") == "sip" and isinstance(e.get("message"), str)]


def _packets(entry: Mapping[str, Any], streams: _Streams) -> Iterator[tuple[float, bytes]]:
    at = _seconds(entry.get("at"))
    source, target = _end(entry.get("local")), _end(entry.get("remote"))
    if entry.get("direction") == "in":
        source, target = target, source
    source, target = _one_family(source, target)
    # A dissector tries to read what stands behind `inline:` and gives up on the whole message.
    data = entry["message"].replace("inline:(redacted)", "(redacted)").encode("utf-8", "replace")
    if entry.get("transport") == "udp":
        yield at, _ip(source, target, _UDP, _udp(source, target, data[:_MAX_UDP]))
        return
    data = _fit_length(data)
    for begin in range(0, len(data), _MAX_SEGMENT):
        piece = data[begin : begin + _MAX_SEGMENT]
        numbers = streams.send(source, target, len(piece))
        yield at, _ip(source, target, _TCP, _tcp(source, target, numbers, piece))


def _fit_length(message: bytes) -> bytes:
    """A reader of a stream finds the next message by this one's length, and what was redacted has changed it."""
    head, mark, body = message.partition(b"\r\n\r\n")
    return _LENGTH.sub(rb"\g<1>\g<2>%d" % len(body), head, count=1) + (mark or b"\r\n\r\n") + body


def _note(timeline: Mapping[str, Any]) -> bytes:
    call_id = str(timeline.get("call_id") or "")[:120]
    tls = any(entry.get("transport") == "tls" for entry in _messages(timeline))
    text = f"call {call_id}: {NOT_INCLUDED}" + ("; TLS is shown as TCP in the clear" if tls else "")
    line = f"<134>Jan  1 00:00:00 offhook offhook: {text}".encode("ascii", "replace")
    host = (ipaddress.IPv4Address("127.0.0.1"), _SYSLOG)
    return _ip(host, host, _UDP, _udp(host, host, line))


def _record(at: float, packet: bytes) -> bytes:
    micros = max(0, round(at * 1_000_000))
    seconds = min(micros // 1_000_000, 0xFFFFFFFF)
    return _RECORD.pack(seconds, micros % 1_000_000, len(packet), len(packet)) + packet


def _udp(source: _End, target: _End, data: bytes) -> bytes:
    length = 8 + len(data)
    plain = struct.pack("!HHHH", source[1], target[1], length, 0) + data
    total = _checksum(_pseudo(source[0], target[0], _UDP, length) + plain) or 0xFFFF
    return plain[:6] + struct.pack("!H", total) + data


def _tcp(source: _End, target: _End, numbers: tuple[int, int], data: bytes) -> bytes:
    push_and_ack = 0x5018
    head = struct.pack("!HHIIHHHH", source[1], target[1], *numbers, push_and_ack, 0xFFFF, 0, 0)
    total = _checksum(_pseudo(source[0], target[0], _TCP, len(head) + len(data)) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def _ip(source: _End, target: _End, protocol: int, payload: bytes) -> bytes:
    if isinstance(source[0], ipaddress.IPv6Address):
        head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64)
        return head + source[0].packed + target[0].packed + payload
    do_not_fragment = 0x4000
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 0, do_not_fragment, 64, protocol)
    ends = source[0].packed + target[0].packed
    return start + struct.pack("!H", _checksum(start + b"\0\0" + ends)) + ends + payload


def _pseudo(source: _Address, target: _Address, protocol: int, length: int) -> bytes:
    return source.packed + target.packed + struct.pack("!II", length, protocol)


def _checksum(data: bytes) -> int:
    """Return RFC 1071's: the ones' complement of the sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 65535, so the number that all words make is as good as their sum.
    total = int.from_bytes(data, "big") % 65_535
    return ~total & 0xFFFF


def _end(address: object) -> _End:
    """Read `host:port`, IPv6 hosts in brackets; what is no address becomes the unspecified one."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    try:
        found: _Address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        found = ipaddress.IPv4Address(0)
    return found, int(port) if port.isascii() and port.isdigit() and int(port) < 65_536 else 0


def _one_family(first: _End, second: _End) -> tuple[_End, _End]:
    if first[0].version == second[0].version:
        return first, second
    return _as_ipv6(first), _as_ipv6(second)


def _as_ipv6(end: _End) -> _End:
    if isinstance(end[0], ipaddress.IPv6Address):
        return end
    return ipaddress.IPv6Address(0xFFFF_0000_0000 | int(end[0])), end[1]


def _seconds(iso: object) -> float:
    try:
        return max(0.0, datetime.datetime.fromisoformat(str(iso)).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0.0
