"""Packets of IP and records of a capture file: classic pcap, microseconds, link type RAW (101). Pure."""

from __future__ import annotations

import functools
import heapq
import ipaddress
import struct
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final

__all__ = [
    "HEADER",
    "TCP",
    "UDP",
    "Address",
    "End",
    "datagram",
    "ip",
    "merge",
    "one_family",
    "parse",
    "record",
    "tcp",
    "udp",
]

HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101)
UDP, TCP = 17, 6
_RECORD: Final = struct.Struct("<IIII")
_LONGEST: Final = 262_144
_PIECE: Final = 64 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]


def datagram(at: float, source: tuple[str, int], target: tuple[str, int], data: bytes) -> bytes:
    """Return the record of a UDP datagram that came or went at this Unix time."""
    first, second = one_family(_address(source[0]), _address(target[0]))
    ends = (first, source[1]), (second, target[1])
    return record(at, ip(*ends, UDP, udp(*ends, data)))


def parse(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """
    Return each record of a file with its time in microseconds; the file comes in pieces of any size.

    What a crash has cut off at the end is left out, and so is all from the first thing that is no record.
    """
    rest, begun = b"", False
    for piece in pieces:
        rest += piece
        at = 0
        if not begun:
            if len(rest) < len(HEADER):
                continue
            if not rest.startswith(HEADER):
                return
            begun, at = True, len(HEADER)
        while at + _RECORD.size <= len(rest):
            seconds, micros, kept, _ = _RECORD.unpack_from(rest, at)
            if kept > _LONGEST or micros >= 1_000_000:
                return
            end = at + _RECORD.size + kept
            if end > len(rest):
                break
            yield seconds * 1_000_000 + micros, rest[at:end]
            at = end
        rest = rest[at:]


def merge(*sources: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Return a file of records from several sources, each in order of time, in pieces of some 64 kB."""
    piece = bytearray(HEADER)
    for _, data in heapq.merge(*sources, key=itemgetter(0)):
        piece += data
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def record(at: float, packet: bytes) -> bytes:
    micros = max(0, round(at * 1_000_000))
    seconds = min(micros // 1_000_000, 0xFFFFFFFF)
    return _RECORD.pack(seconds, micros % 1_000_000, len(packet), len(packet)) + packet


def udp(source: End, target: End, data: bytes) -> bytes:
    length = 8 + len(data)
    plain = struct.pack("!HHHH", source[1], target[1], length, 0) + data
    total = _checksum(_pseudo(source[0], target[0], UDP, length) + plain) or 0xFFFF
    return plain[:6] + struct.pack("!H", total) + data


def tcp(source: End, target: End, numbers: tuple[int, int], data: bytes) -> bytes:
    push_and_ack = 0x5018
    head = struct.pack("!HHIIHHHH", source[1], target[1], *numbers, push_and_ack, 0xFFFF, 0, 0)
    total = _checksum(_pseudo(source[0], target[0], TCP, len(head) + len(data)) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def ip(source: End, target: End, protocol: int, payload: bytes) -> bytes:
    if isinstance(source[0], ipaddress.IPv6Address):
        head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64)
        return head + source[0].packed + target[0].packed + payload
    do_not_fragment = 0x4000
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 0, do_not_fragment, 64, protocol)
    ends = source[0].packed + target[0].packed
    return start + struct.pack("!H", _checksum(start + b"\0\0" + ends)) + ends + payload


def _pseudo(source: Address, target: Address, protocol: int, length: int) -> bytes:
    return source.packed + target.packed + struct.pack("!II", length, protocol)


def _checksum(data: bytes) -> int:
    """Return RFC 1071's: the ones' complement of the sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 65535, so the number that all words make is as good as their sum.
    total = int.from_bytes(data, "big") % 65_535
    return ~total & 0xFFFF


@functools.lru_cache(maxsize=1024)
def _address(host: str) -> Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    # A socket of both families shows peers of IPv4 so; on the wire, and in SDP, they are of IPv4.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def one_family(first: Address, second: Address) -> tuple[Address, Address]:
    """Return both as of one family: an address of IPv4 beside one of IPv6 is written as such."""
    if first.version == second.version:
        return first, second
    return _as_ipv6(first), _as_ipv6(second)


def _as_ipv6(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(0xFFFF_0000_0000 | int(address))
