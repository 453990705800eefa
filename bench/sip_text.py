"""
What SIP text costs: one carrier's INVITE, read, checked, answered; and the dearest 64 kB a peer could send.

    python bench/sip_text.py
"""

from __future__ import annotations

import platform
import time
import timeit
from collections.abc import Callable

from offhook.sip.framing import StreamFramer
from offhook.sip.message import MessageError, Request, create_response, parse_message, validate_request

SDP = b"\r\n".join(
    [
        b"v=0",
        b"o=root 1964 1964 IN IP4 172.18.155.180",
        b"s=Gateway",
        b"c=IN IP4 192.0.2.12",
        b"t=0 0",
        b"m=audio 12692 RTP/AVP 0 8 101",
        b"a=rtpmap:0 PCMU/8000",
        b"a=rtpmap:8 PCMA/8000",
        b"a=rtpmap:101 telephone-event/8000",
        b"a=fmtp:101 0-16",
        b"a=ptime:20",
        b"",
    ]
)
INVITE = b"\r\n".join(
    [
        b"INVITE sip:proj_x@203.0.113.9;transport=tls SIP/2.0",
        b"Record-Route: <sip:192.0.2.60:5061;transport=tls;r2=on;lr>",
        b"Record-Route: <sip:192.0.2.60;r2=on;lr>",
        b'From: "Jo Caller" <sip:+10987654321@trunk.example.com:5060>;tag=08601002_c3356d0b_658bbbdc-2a3f',
        b"To: <sip:+11234567890@host;transport=tls>",
        b"CSeq: 29044 INVITE",
        b"Max-Forwards: 60",
        b"P-Asserted-Identity: <sip:+10987654321@192.0.2.12:5060>",
        b"Diversion: <sip:+11234567890@example.com>;reason=unconditional",
        b"Call-ID: fb3e1b1d7a0f8b6d3b5a@0.0.0.0",
        b"Via: SIP/2.0/TLS 192.0.2.60:5061;branch=z9hG4bK6d1a.2f8d3a7.0",
        b"Via: SIP/2.0/UDP 172.25.75.240:5060;rport=5060;branch=z9hG4bK08601002_c3356d0b_123",
        b"Contact: <sip:+10987654321@172.25.75.240:5060;transport=udp>",
        b"Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY",
        b"User-Agent: Gateway",
        b"X-Account: AC00000000000000000000000000000000",
        b"X-Call: CA00000000000000000000000000000000",
        b"Content-Type: application/sdp",
        b"Content-Length: %d" % len(SDP),
        b"",
        SDP,
    ]
)
HOSTILE = [
    '"',
    ";",
    "<",
    ",",
    "\\",
    ";a",
    "a;",
    "a,",
    "<>,",
    " ",
    '"a",',
    ';a="b"',
    "sip:a,",
    "<sip:a>,",
    ";;",
    ",;",
]


def receive(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    validate_request(message)
    return message


def report(what: str, call: Callable[[], object], number: int = 5000) -> None:
    best = min(timeit.repeat(call, number=number, repeat=5)) / number
    print(f"{what:28} {best * 1e6:7.1f} µs")


def answer(data: bytes) -> None:
    try:
        bytes(create_response(receive(data), 200, to_tag="x"))
    except MessageError as error:
        if error.request is not None and error.status_hint is not None:
            bytes(create_response(error.request, error.status_hint, to_tag="x"))


def dearest() -> tuple[float, str]:
    """Fill each header in turn with 8 kB of a piece, alone and seven times over."""
    names = ("Via", "From", "To", "Call-ID", "CSeq", "Contact", "Subject")
    costs = []
    for name in names:
        for piece in HOSTILE:
            for lines in (1, 7):
                filler = f"{name}: {(piece * 8000)[:8000]}\r\n".encode() * lines
                data = INVITE.replace(b"Max-Forwards", filler + b"Max-Forwards", 1)
                start = time.perf_counter()
                answer(data)
                costs.append((time.perf_counter() - start, f"{name}: {piece!r} x {lines}"))
    return max(costs)


def main() -> None:
    invite = receive(INVITE)
    response = create_response(invite, 200, to_tag="x", body=SDP, content_type="application/sdp")
    print(f"{platform.python_version()}, {platform.machine()}; INVITE of {len(INVITE)} bytes")
    report("parse", lambda: parse_message(INVITE))
    report("parse and validate", lambda: receive(INVITE))
    report("create a response", lambda: create_response(invite, 200, to_tag="x"))
    report("write it", lambda: bytes(response))
    report("frame it on a stream", lambda: StreamFramer().receive_data(INVITE))
    cost, what = dearest()
    print(f"{'dearest hostile message':28} {cost * 1e3:7.1f} ms  ({what})")


if __name__ == "__main__":
    main()
