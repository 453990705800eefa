"""Messages are counted by what their first line and CSeq say, and no peer can make a series of its own."""

from __future__ import annotations

import pytest

from offhook.sip.message_counts import MessageCounts

REQUEST = b"%s sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 %s\r\n\r\n"
RESPONSE = b"SIP/2.0 %d Text\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n%s\r\nContent-Length: 0\r\n\r\n"


def test_requests_by_direction_and_method() -> None:
    counts = MessageCounts()
    for _ in range(3):
        counts.count("in", REQUEST % (b"INVITE", b"INVITE"))
    counts.count("out", REQUEST % (b"BYE", b"BYE"))
    assert counts.requests == {("in", "INVITE"): 3, ("out", "BYE"): 1}
    assert counts.responses == {}


@pytest.mark.parametrize("cseq", [b"CSeq: 7 INVITE", b"cseq:7  INVITE", b"CSEQ: 7\tINVITE"])
@pytest.mark.parametrize(("status", "kind"), [(100, "1xx"), (200, "2xx"), (486, "4xx"), (603, "6xx")])
def test_responses_by_method_and_class(cseq: bytes, status: int, kind: str) -> None:
    counts = MessageCounts()
    counts.count("out", RESPONSE % (status, cseq))
    assert counts.responses == {("out", "INVITE", kind): 1}


@pytest.mark.parametrize(
    "data",
    [
        REQUEST % (b"BREW", b"BREW"),
        REQUEST % (b"A" * 5000, b"A"),
        b"\xff\xfe\x00\x00garbage of some kind",
        b"no blank at all, and rather long",
    ],
)
def test_a_method_that_nobody_knows_is_other(data: bytes) -> None:
    counts = MessageCounts()
    counts.count("in", data)
    assert counts.requests == {("in", "other"): 1}


@pytest.mark.parametrize(
    "data",
    [
        RESPONSE % (200, b"CSeq: 1 MINE"),
        RESPONSE % (200, b"CSeq:"),
        RESPONSE % (200, b"X: y"),
        b"SIP/2.0 200",
    ],
)
def test_a_response_to_nothing_known_is_other(data: bytes) -> None:
    counts = MessageCounts()
    counts.count("in", data)
    assert counts.responses == {("in", "other", "2xx"): 1}


@pytest.mark.parametrize("data", [b"SIP/2.0 ", b"SIP/2.0 x00 Odd\r\n\r\n", b"SIP/2.0 900 Odd\r\n\r\n"])
def test_a_status_that_is_none_is_other(data: bytes) -> None:
    counts = MessageCounts()
    counts.count("in", data)
    assert counts.responses == {("in", "other", "other"): 1}


@pytest.mark.parametrize("ping", [b"", b"\r\n", b"\r\n\r\n"])
def test_keep_alives_are_no_messages(ping: bytes) -> None:
    counts = MessageCounts()
    counts.count("out", ping)
    assert not counts.requests
    assert not counts.responses
