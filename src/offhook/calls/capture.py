"""
A call's SIP messages, and what else was kept of it, as a capture file that Wireshark, tshark and sngrep open. Pure.

Each packet begins with its IP header. What was kept of a call's signalling are its messages, not its packets, so the
headers are made here: real addresses, ports and times; UDP as it was, TCP with the
right sequence numbers but no handshake. What went by TLS is shown as TCP in the clear, since the messages are known and
the keys are nobody's. What is not in the file says a first packet, a syslog line from and to port 514.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .packets import TCP, UDP, Address, End, ip, merge, one_family, parse, record, tcp, udp
from .redaction import redact

__all__ = ["NOT_INCLUDED", "capture", "merged_capture", "not_included"]

_MAX_UDP = 65_507 - 20
_MAX_SEGMENT = 60_000
_SYSLOG = 514
_LENGTH: Final = re.compile(rb"^(Content-Length|l)([ \t]*:[ \t]*)\d{1,10}[ \t]*(?=\r?$)", re.I | re.M)


def not_included(*, rtp: bool, keys: bool) -> str:
    """Say what a capture that was asked for so does not hold."""
    missing = [
        "" if rtp else "RTP and RTCP (kept and given by choice only)",
        "keys of TLS (not kept)" if keys else "keys of SRTP and TLS",
        "digest credentials" if keys else "digest credentials and a=crypto keys",
    ]
    what = "SIP" + (", RTP and RTCP" if rtp else "") + (", keys of SRTP" if keys else "")
    return (
        f"{what}{'' if rtp or keys else ' only'}. Not in this file: {', '.join(filter(None, missing))} "
        "(redacted in the messages; Content-Length is made to fit)"
    )


NOT_INCLUDED: Final = not_included(rtp=False, keys=False)


@dataclass(slots=True)
class _Streams:
    """Where the bytes of each TCP connection stand, for each direction."""

    sent: dict[tuple[End, End], int] = field(default_factory=dict)

    def send(self, source: End, target: End, length: int) -> tuple[int, int]:
        """Return the sequence and acknowledgement numbers of so many bytes."""
        sequence, acknowledged = self.sent.get((source, target), 1), self.sent.get((target, source), 1)
        self.sent[source, target] = sequence + length
        return sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF


def capture(timeline: Mapping[str, Any]) -> bytes:
    """Return the file for a body of `GET /v1/realtime/calls/{id}/timeline`. A call without SIP has its note alone."""
    return b"".join(merge(_records(timeline, NOT_INCLUDED)))


def merged_capture(
    timeline: Mapping[str, Any], kept: Iterable[bytes] | None, originals: Iterable[str] | None
) -> Iterator[bytes]:
    """
    Return such a file, piece by piece, with more in it.

    `kept` is a file of the call's packets, in pieces; `originals` are messages as they were before redaction, and
    stand where the timeline has them redacted. `None`: not asked for.
    """
    if originals is not None:
        timeline = _reveal(timeline, originals)
    said = not_included(rtp=kept is not None, keys=originals is not None)
    yield from merge(_records(timeline, said), parse(kept or ()))


def _reveal(timeline: Mapping[str, Any], originals: Iterable[str]) -> dict[str, Any]:
    known = {redact(text): text for text in originals}
    data = [
        {**entry, "message": known.get(entry["message"], entry["message"])} for entry in _messages(timeline)
    ]
    return {**timeline, "data": data}


def _records(timeline: Mapping[str, Any], said: str) -> list[tuple[int, bytes]]:
    """Return the note and all messages with their times in microseconds, by time."""
    streams = _Streams()
    found = [packet for entry in _messages(timeline) for packet in _packets(entry, streams)]
    start = min((at for at, _ in found), default=_seconds(timeline.get("started_at")))
    found = [(start, _note(timeline, said)), *found]
    return sorted(
        ((round(at * 1_000_000), record(at, packet)) for at, packet in found), key=lambda one: one[0]
    )


def _messages(timeline: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = timeline.get("data")
    found = [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
    return [e for e in found if e.get("kind") == "sip" and isinstance(e.get("message"), str)]


def _packets(entry: Mapping[str, Any], streams: _Streams) -> Iterator[tuple[float, bytes]]:
    at = _seconds(entry.get("at"))
    source, target = _end(entry.get("local")), _end(entry.get("remote"))
    if entry.get("direction") == "in":
        source, target = target, source
    hosts = one_family(source[0], target[0])
    source, target = (hosts[0], source[1]), (hosts[1], target[1])
    # A dissector tries to read what stands behind `inline:` and gives up on the whole message.
    data = entry["message"].replace("inline:(redacted)", "(redacted)").encode("utf-8", "replace")
    if entry.get("transport") == "udp":
        yield at, ip(source, target, UDP, udp(source, target, data[:_MAX_UDP]))
        return
    data = _fit_length(data)
    for begin in range(0, len(data), _MAX_SEGMENT):
        piece = data[begin : begin + _MAX_SEGMENT]
        numbers = streams.send(source, target, len(piece))
        yield at, ip(source, target, TCP, tcp(source, target, numbers, piece))


def _fit_length(message: bytes) -> bytes:
    """A reader of a stream finds the next message by this one's length, and what was redacted has changed it."""
    head, mark, body = message.partition(b"\r\n\r\n")
    return _LENGTH.sub(rb"\g<1>\g<2>%d" % len(body), head, count=1) + (mark or b"\r\n\r\n") + body


def _note(timeline: Mapping[str, Any], said: str) -> bytes:
    call_id = str(timeline.get("call_id") or "")[:120]
    tls = any(entry.get("transport") == "tls" for entry in _messages(timeline))
    text = f"call {call_id}: {said}" + ("; TLS is shown as TCP in the clear" if tls else "")
    line = f"<134>Jan  1 00:00:00 offhook offhook: {text}".encode("ascii", "replace")
    host = (ipaddress.IPv4Address("127.0.0.1"), _SYSLOG)
    return ip(host, host, UDP, udp(host, host, line))


def _end(address: object) -> End:
    """Read `host:port`, IPv6 hosts in brackets; what is no address becomes the unspecified one."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    try:
        found: Address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        found = ipaddress.IPv4Address(0)
    return found, int(port) if port.isascii() and port.isdigit() and int(port) < 65_536 else 0


def _seconds(iso: object) -> float:
    try:
        return max(0.0, datetime.datetime.fromisoformat(str(iso)).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0.0
