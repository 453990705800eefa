"""
What a peer can send us, parser by parser: each target takes bytes, and fails when the parser breaks its word.

A parser may raise the error that it documents and no other; what it gives must be written and read back alike. The
same targets run under hypothesis and on their seeds in `make test`, and under atheris in `make fuzz`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from offhook.calls.presses import InfoError, parse_info
from offhook.media import negotiate, rtcp
from offhook.media.negotiate import LocalMedia, MediaPlan, NotAcceptable
from offhook.media.rtp import RtpError, RtpPacket
from offhook.media.sdp import SdpError, SessionDescription
from offhook.media.stream import MediaStream
from offhook.realtime.client_events import ClientEventError, parse_client_event
from offhook.realtime.session_config import ConfigError, parse_accept
from offhook.sip.events import Offered, Requested
from offhook.sip.flow import Flow
from offhook.sip.framing import FramingError, MessageFrame, StreamFramer
from offhook.sip.headers import HeaderError, parse_content_type, parse_cseq, parse_name_addr
from offhook.sip.message import MessageError, parse_message, validate_request, validate_response
from offhook.sip.message import Request as SipRequest
from offhook.sip.multipart import body_parts
from offhook.sip.refer import parse_sipfrag
from offhook.sip.route import Way
from offhook.sip.stack import Incoming, Output, Reach, Stack, StackConfig, Transmit, UsageEvent
from offhook.sip.uri import SipUri, UriError
from offhook.sip.via import Via

__all__ = ["TARGETS", "Target"]

RFC4475 = Path(__file__).parent.parent / "torture" / "rfc4475"
CRLF = b"\r\n"

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
    b"a=sendrecv\r\n"
)
INVITE = (
    b"INVITE sip:proj_x@192.0.2.9;transport=tls SIP/2.0\r\n"
    b"Record-Route: <sip:54.172.60.0:5061;transport=tls;r2=on;lr>\r\n"
    b"Via: SIP/2.0/TLS 54.172.60.0:5061;branch=z9hG4bK1;rport\r\n"
    b'f: "A\\"B" <sip:+15550100@192.0.2.1;user=phone>;tag=1\r\nt: <sip:proj_x@192.0.2.9>\r\n'
    b"i: c1@192.0.2.1\r\nCSeq: 1 INVITE\r\nm: <sip:192.0.2.1:5060>\r\nMax-Forwards: 70\r\n"
    b"c: application/sdp\r\nl: " + str(len(OFFER)).encode() + b"\r\n\r\n" + OFFER
)
MULTIPART = (
    b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK2\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\n"
    b"Call-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nMax-Forwards: 1\r\n"
    b'Content-Type: multipart/mixed;boundary="x y"\r\n\r\n'
    b"--x y\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--x y\r\n\r\nplain\r\n--x y--\r\n"
)
EVENTS = (
    b'{"type":"session.update","session":{"type":"realtime","audio":{"input":{"format":null}}}}',
    b'{"type":"input_audio_buffer.append","audio":"AAAA"}',
    b'{"type":"conversation.item.create","item":{"type":"message","role":"user",'
    b'"content":[{"type":"input_text","text":"x"}]}}',
    b'{"type":"response.create","event_id":"e","response":{"conversation":"none","input":[]}}',
    b'{"type":"conversation.item.truncate","item_id":"i","content_index":0,"audio_end_ms":10}',
)
LOCAL = LocalMedia("192.0.2.9", 20_000, 1, 1)
PLAN = MediaPlan("PCMU", 0, 101, ("192.0.2.1", 40_000), ("192.0.2.1", 40_001), dtmf_receive=frozenset({101}))


@dataclass(frozen=True)
class Target:
    """One parser: how to feed it, and what good food looks like."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    "Tokens of its language, for a fuzzer's dictionary."


def _rfc4475() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(RFC4475.glob("*.dat")))


def _explained(*texts: str | None) -> None:
    assert all(texts), texts


def sip_message(data: bytes) -> None:
    try:
        message = parse_message(data)
        if isinstance(message, SipRequest):
            validate_request(message)
        else:
            validate_response(message)
    except MessageError as error:
        _explained(error.text)
        return
    again = parse_message(bytes(message))
    assert bytes(again) == bytes(message)
    assert again.body == message.body


def sip_stream(data: bytes) -> None:
    """However a stream is cut into pieces, the same frames come out of it."""
    whole, faulted = _frames(StreamFramer(), [data])
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    cut, cut_faulted = _frames(StreamFramer(), pieces)
    assert [frame for frame in whole if frame] == [frame for frame in cut if frame]
    assert faulted == cut_faulted


def _frames(framer: StreamFramer, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    frames: list[bytes] = []
    for piece in pieces:
        try:
            got = framer.receive_data(piece)
        except FramingError as error:
            frames += [frame.data for frame in error.frames if isinstance(frame, MessageFrame)]
            return frames, True
        frames += [frame.data for frame in got if isinstance(frame, MessageFrame)]
    return frames, False


def sip_header_fields(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse, faults in (
        (SipUri.parse, UriError),
        (parse_name_addr, HeaderError),
        (Via.parse, HeaderError),
        (parse_cseq, HeaderError),
        (parse_content_type, HeaderError),
    ):
        try:
            parsed = parse(text)  # type: ignore[operator]
        except faults:
            continue
        assert str(parse(str(parsed))) == str(parsed)  # type: ignore[operator]
    parse_sipfrag(data)


def sip_body(data: bytes) -> None:
    try:
        message = parse_message(data)
        parts = body_parts(message)
    except (MessageError, HeaderError):
        return
    assert len(parts) <= 16
    assert sum(len(part.body) for part in parts) <= len(message.body)


class _Agent:
    """A whole user agent under fire: it answers OPTIONS afterwards, and forgets."""

    def __init__(self) -> None:
        numbers = itertools.count()
        self._stack = Stack(StackConfig(), new_token=lambda: f"t{next(numbers)}")
        self._stack.listen("udp", "192.0.2.9", 5060)
        self._now = 0.0
        self._flow = Flow("udp", ("192.0.2.9", 5060), ("192.0.2.1", 5060))
        self._branches = itertools.count()

    def __call__(self, data: bytes) -> None:
        stack = self._stack
        for piece in data.split(b"\n\n---\n"):
            stack.receive(piece, self._flow, now=self._now)
            self._settle()
        assert any(b"SIP/2.0 200" in sent for sent in self._ask()), "OPTIONS was not answered"
        # Far beyond every timer of the RFC.
        for _ in range(40):
            self._now += 8.0
            stack.handle_timer(now=self._now)
            self._settle()
        assert stack.transaction_count == 0
        assert stack.call_count == 0

    def _ask(self) -> list[bytes]:
        options = (
            b"OPTIONS sip:192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKo%d\r\n"
            b"From: <sip:a@b>;tag=1\r\n"
            b"To: <sip:b@b>\r\nCall-ID: o%d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        number = next(self._branches)
        self._stack.receive(options % (number, number), self._flow, now=self._now)
        return [output.data for output in self._stack.outputs() if isinstance(output, Transmit)]

    def _settle(self) -> None:
        """Do as little as a program above can: take calls, and hang up."""
        while outputs := self._stack.outputs():
            for output in outputs:
                self._handle(output)

    def _handle(self, output: Output) -> None:
        if isinstance(output, Incoming):
            output.usage.answer(b"", now=self._now)
            output.usage.hangup(now=self._now)
        elif isinstance(output, UsageEvent) and isinstance(output.event, Offered | Requested):
            output.usage.respond(output.event.request, 488, now=self._now)
        elif isinstance(output, Reach):
            self._stack.reached(output.key, Way(None), now=self._now)


def sdp(data: bytes) -> None:
    try:
        parsed = SessionDescription.parse(data)
    except SdpError:
        return
    again = SessionDescription.parse(bytes(parsed))
    assert bytes(again) == bytes(parsed)


def sdp_offer(data: bytes) -> None:
    try:
        answer = negotiate.answer(data, LOCAL)
    except NotAcceptable as error:
        _explained(str(error))
        return
    offered, answered = SessionDescription.parse(data), SessionDescription.parse(answer.sdp)
    assert [media.kind for media in answered.media] == [media.kind for media in offered.media]
    assert sum(media.port != 0 for media in answered.media) == 1


def rtp(data: bytes) -> None:
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    again = RtpPacket.parse(bytes(packet))
    assert (again.payload, again.sequence, again.timestamp) == (
        packet.payload,
        packet.sequence,
        packet.timestamp,
    )


def digit_info(data: bytes) -> None:
    try:
        digit, duration_ms = parse_info(data)
    except InfoError:
        return
    assert digit is None or digit in "0123456789*#ABCD"
    assert 0 <= duration_ms <= 60_000


def rtcp_compound(data: bytes) -> None:
    try:
        rtcp.parse_compound(data)
    except rtcp.RtcpError:
        return


def media_stream(data: bytes) -> None:
    """Datagrams of a call, each with a byte before it that says its length and where it comes from."""
    stream = MediaStream(
        PLAN,
        ssrc=1,
        sequence=1,
        timestamp=1,
        cname="c",
        now=0.0,
        wall_offset=1e9,
        prompt=bool(data[:1] > b"\x80"),
    )
    now = 0.0
    for datagram, kind in _datagrams(data):
        source = ("192.0.2.1", 40_000) if kind & 1 else ("203.0.113.5", 40_000)
        if kind & 2:
            stream.receive_rtcp(datagram, source, now)
        else:
            stream.receive_rtp(datagram, source, now)
        while stream.early_frame() is not None:
            pass
        if kind & 4:
            now += 0.02
            frame = stream.next_frame(now)
            assert frame is None or len(frame) == 160
            stream.next_packet()
        stream.take_events()
    stream.create_report(now)


def _datagrams(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 2 <= len(data):
        length, kind = data[at], data[at + 1]
        yield data[at + 2 : at + 2 + length], kind
        at += 2 + length


def client_event(data: bytes) -> None:
    try:
        parse_client_event(data.decode("utf-8", "replace"))
    except ClientEventError as error:
        _explained(error.message, error.code)


def accept_body(data: bytes) -> None:
    import orjson

    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    try:
        config = parse_accept(body)
    except ConfigError as error:
        _explained(error.code)
        return
    config.to_api(session_id="sess_1", expires_at=0)


_SIP_WORDS = (
    *(
        b"INVITE",
        b"ACK",
        b"BYE",
        b"CANCEL",
        b"OPTIONS",
        b"NOTIFY",
        b"UPDATE",
        b"SIP/2.0",
        b"SIP/2.0/UDP",
        b"Via: ",
    ),
    *(
        b"Record-Route: ",
        b"Route: ",
        b"Contact: ",
        b"Content-Length: ",
        b"CSeq: ",
        b";branch=z9hG4bK",
        b";rport",
    ),
    *(
        b";lr",
        b";tag=",
        b"Require: ",
        b"Event: refer",
        b"\r\n ",
        b"\r\n\r\n",
        b"<sip:",
        b"sips:",
        b"tel:",
        b"%0d%0a",
    ),
)
_SDP_WORDS = (
    *(
        b"m=audio ",
        b"RTP/AVP",
        b"RTP/SAVP",
        b"a=rtpmap:",
        b"a=crypto:1 ",
        b"c=IN IP4 ",
        b"c=IN IP6 ",
        b"a=inactive",
    ),
    *(b"telephone-event/8000", b"a=rtcp:", b"a=ptime:", b"a=rtcp-mux", b"0.0.0.0", b"224.0.0.1"),
)
_RTP = bytes(RtpPacket(0, 1, 160, 7, b"\xff" * 160))
_DIGIT = bytes(RtpPacket(101, 2, 160, 7, b"\x05\x8a\x03\x20", marker=True))
_REPORT = b"\x81\xc9\x00\x07" + b"\x00\x00\x00\x07" * 7 + b"\x81\xca\x00\x02\x00\x00\x00\x07\x01\x01c\x00"
_CALL = b"".join(
    bytes((len(one), kind)) + one for one, kind in ((_RTP, 5), (_DIGIT, 5), (_REPORT, 3), (_RTP, 4))
)

TARGETS = {
    target.name: target
    for target in (
        Target("sip_message", sip_message, (INVITE, MULTIPART, *_rfc4475()), _SIP_WORDS),
        Target("sip_stream", sip_stream, (INVITE + INVITE, CRLF * 2 + INVITE, *_rfc4475()), _SIP_WORDS),
        Target(
            "sip_header_fields",
            sip_header_fields,
            (
                b'"A \\" B" <sip:+1;a=b@h:5060;transport=tls?x=y>;tag=1;p="q;r"',
                b"SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bK1;received=192.0.2.1;rport=1",
                b"sips:a%20b:c@[::1]:1;lr;maddr=x?h=v",
                b"tel:+1-555;phone-context=x",
                b"2147483647 INVITE",
                b'multipart/mixed;boundary="a b"',
            ),
            _SIP_WORDS,
        ),
        Target("sip_body", sip_body, (MULTIPART, INVITE), _SIP_WORDS),
        Target(
            "sip_agent",
            _Agent(),
            (INVITE, INVITE + b"\n\n---\n" + INVITE.replace(b"INVITE", b"CANCEL"), *_rfc4475()),
            _SIP_WORDS,
        ),
        Target("sdp", sdp, (OFFER,), _SDP_WORDS),
        Target("sdp_offer", sdp_offer, (OFFER, OFFER + OFFER[OFFER.index(b"m=") :]), _SDP_WORDS),
        Target("rtp", rtp, (_RTP, _DIGIT)),
        Target("rtcp", rtcp_compound, (_REPORT,)),
        Target("digit_info", digit_info, (b"Signal=5\r\nDuration=160\r\n", b"Signal: 11", b"#")),
        Target("media_stream", media_stream, (_CALL,)),
        Target("client_event", client_event, EVENTS),
        Target(
            "accept_body", accept_body, (b'{"type":"realtime","tools":[{"type":"function","name":"f"}]}',)
        ),
    )
}
