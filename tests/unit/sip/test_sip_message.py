"""Messages: RFC 3261 sections 7, 8.1.1, 8.2, 8.2.6.2 and 18.3, the caps on hostile input, and what trunks send."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip.headers import CSeq, HeaderError, Headers, NameAddr
from offhook.sip.message import (
    MAX_HEADER_VALUE,
    MAX_HEADERS,
    MAX_MESSAGE,
    MAX_VIAS,
    METHODS,
    MessageError,
    Request,
    Response,
    create_response,
    parse_message,
    validate_request,
    validate_response,
)
from offhook.sip.status import REASONS, reason_phrase
from offhook.sip.uri import SipUri, UriError


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


# RFC 3261 section 24.2, F1.
INVITE = crlf(
    """INVITE sip:bob@biloxi.com SIP/2.0
Via: SIP/2.0/TCP client.atlanta.com:5060;branch=z9hG4bK74b43
Max-Forwards: 70
Route: <sip:ss1.atlanta.com;lr>
From: Alice <sip:alice@atlanta.com>;tag=9fxced76sl
To: Bob <sip:bob@biloxi.com>
Call-ID: 3848276298220188511@atlanta.com
CSeq: 1 INVITE
Contact: <sip:alice@client.atlanta.com;transport=tcp>
Content-Type: application/sdp
Content-Length: 4

v=0
"""
).replace(b"v=0\r\n", b"v=0\n")

# As Telnyx writes it: compact names, no space after the colon, long and short Via mixed.
TELNYX = crlf(
    """INVITE sip:+13035551111@203.0.113.9:5060 SIP/2.0
Record-Route:<sip:192.76.120.10;lr;ftag=a>
Record-Route:<sip:10.0.0.1;r2=on;lr>
Record-Route:<sip:10.0.0.2;r2=on;lr>
Via:SIP/2.0/UDP 192.76.120.10;branch=z9hG4bKa.1
v:SIP/2.0/UDP 10.0.0.1:5060;received=10.0.0.1;branch=z9hG4bKb
f:"+13035552222"<sip:+13035552222@192.76.120.10>;tag=a
t:<sip:+13035551111@10.0.0.9:5060>
i:abc
CSeq:102 INVITE
m:<sip:+13035552222@10.0.0.1:5060;transport=udp>
k:timer
c:application/sdp
P-Asserted-Identity:<sip:+13035552222@192.76.120.10;verstat=TN-Validation-Passed-A>
P-Charging-Vector:icid-value="a=b;c,d";icid-generated-at=[2001:db8::1];orig-ioi="x=y"
l:0

"""
)


def request(data: bytes = INVITE) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def error(data: bytes) -> MessageError:
    with pytest.raises(MessageError) as caught:
        receive(data)
    return caught.value


def receive(data: bytes) -> Request | Response:
    """Do what a stack does with a datagram."""
    message = parse_message(data)
    if isinstance(message, Request):
        validate_request(message)
    else:
        validate_response(message)
    return message


def edited(old: str, new: str, data: bytes = INVITE) -> bytes:
    assert old.encode() in data
    return data.replace(old.encode(), new.encode(), 1)


class TestParse:
    def test_an_invite(self) -> None:
        invite = request()
        validate_request(invite)
        assert (invite.method, invite.uri, invite.version) == ("INVITE", "sip:bob@biloxi.com", "SIP/2.0")
        assert invite.request_uri == SipUri("sip", "bob", "biloxi.com")
        assert invite.top_via.host == "client.atlanta.com"
        assert invite.from_ == NameAddr(
            "Alice", SipUri("sip", "alice", "atlanta.com"), (("tag", "9fxced76sl"),)
        )
        assert invite.to.tag is None
        assert invite.call_id == "3848276298220188511@atlanta.com"
        assert invite.cseq == CSeq(1, "INVITE")
        assert invite.max_forwards == 70
        assert invite.contact is not None
        assert invite.content_type is not None
        assert invite.content_type.media_type == "application/sdp"
        assert invite.body == b"v=0\n"

    def test_a_response(self) -> None:
        data = edited("INVITE sip:bob@biloxi.com SIP/2.0", "SIP/2.0 486 Busy  Here")
        response = parse_message(data)
        assert isinstance(response, Response)
        validate_response(response)
        assert (response.status, response.reason) == (486, "Busy  Here")

    def test_what_is_written_is_what_was_read(self) -> None:
        assert bytes(request()) == INVITE

    def test_compact_names_without_a_space(self) -> None:
        invite = request(TELNYX)
        validate_request(invite)
        assert [via.branch for via in invite.vias] == ["z9hG4bKa.1", "z9hG4bKb"]
        assert invite.from_.display_name == "+13035552222"
        assert isinstance(invite.to.uri, SipUri)
        assert invite.to.uri.host == "10.0.0.9"
        assert invite.call_id == "abc"
        assert invite.headers.values("Supported") == ["timer"]
        assert invite.headers.values("Record-Route") == [
            "<sip:192.76.120.10;lr;ftag=a>",
            "<sip:10.0.0.1;r2=on;lr>",
            "<sip:10.0.0.2;r2=on;lr>",
        ]
        vector = 'icid-value="a=b;c,d";icid-generated-at=[2001:db8::1];orig-ioi="x=y"'
        assert invite.headers.get("P-Charging-Vector") == vector

    def test_folded_lines(self) -> None:
        data = edited(
            "To: Bob <sip:bob@biloxi.com>",
            "To: Bob\r\n\t<sip:bob@biloxi.com>\r\n  ;x=y\r\nSubject:\r\n a\r\n ",
        )
        invite = request(data)
        assert invite.headers.get("To") == "Bob <sip:bob@biloxi.com> ;x=y"
        assert invite.to.params == (("x", "y"),)
        assert invite.headers.get("Subject") == "a"
        assert invite.headers.get("Call-ID") == "3848276298220188511@atlanta.com"

    def test_latin_1_is_read_and_goes_back_as_it_came(self) -> None:
        data = INVITE.replace(b"Alice", b'"J\xf6rg"').replace(b"Bob <", "Zoë <".encode())
        invite = request(data)
        assert invite.from_.display_name == "Jörg"
        assert invite.to.display_name == "Zoë"
        assert bytes(invite) == data
        answer = bytes(create_response(invite, 180, to_tag="1"))
        assert b'From: "J\xf6rg" <sip:alice@atlanta.com>;tag=9fxced76sl\r\n' in answer
        assert "To: Zoë <sip:bob@biloxi.com>;tag=1\r\n".encode() in answer

    def test_line_breaks_before_the_start_line_are_skipped(self) -> None:
        assert request(b"\r\n\r\n" + INVITE).method == "INVITE"

    def test_a_datagram_without_content_length(self) -> None:
        assert request(edited("Content-Length: 4\r\n", "")).body == b"v=0\n"

    def test_a_datagram_with_more_than_content_length(self) -> None:
        assert request(INVITE + b"garbage").body == b"v=0\n"

    def test_a_long_token_and_24_kilobytes_of_sdp(self) -> None:
        sdp = b"v=0\r\n" + b"a=x\r\n" * 4800
        data = edited(
            "Max-Forwards: 70", f"Max-Forwards: 70\r\nX-Twilio-CallToken: {'t' * 4000}", INVITE[:-4]
        )
        invite = request(data.replace(b"Content-Length: 4", b"Content-Length: %d" % len(sdp)) + sdp)
        assert len(invite.headers.get("X-Twilio-CallToken") or "") == 4000
        assert len(invite.body) == 24_005

    def test_unknown_and_odd_headers_do_not_matter(self) -> None:
        odd = 'Date: yesterday\r\nExpires: soon\r\nX Y: z\r\nIdentity: a\r\nIdentity: b\r\nAllow: ,,\r\nÜ: "\r\n'
        validate_request(request(edited("Max-Forwards: 70\r\n", f"Max-Forwards: none\r\n{odd}")))

    def test_tel_uris_as_parties(self) -> None:
        data = edited("Alice <sip:alice@atlanta.com>", "tel:+13035552222")
        invite = request(edited("INVITE sip:bob@biloxi.com", "INVITE tel:+13035551111", data))
        validate_request(invite)
        assert invite.from_.uri == SipUri("tel", "+13035552222", "")
        assert invite.from_.tag == "9fxced76sl"

    def test_a_from_whose_uri_is_odd_costs_no_call(self) -> None:
        # The identity is for people; only Contact and Request-URI decide where things go.
        invite = request(edited("sip:alice@atlanta.com", "sip:alice@corp@atlanta.com"))
        validate_request(invite)
        assert invite.from_.uri == "sip:alice@corp@atlanta.com"

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\r\n\r\n",
            b"\x00" * 20,
            b"hello\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SIP/2.0\r\n\r\n",
            b"SIP/2.0 200\xff\r\n\r\n",
            b"SIP/2.0 2x0 OK\r\n\r\n",
            b"SIP/2.0 99 OK\r\n\r\n",
            b"SIP/2.0 700 OK\r\n\r\n",
            b"SIP/3.0 200 OK\r\n\r\n",
            b"INV(ITE sip:a@b SIP/2.0\r\n\r\n",
            b"INVITE sip:a@b\r\n\r\n",
            INVITE.replace(b"\r\n", b"\n"),
        ],
    )
    def test_what_is_no_sip_is_dropped(self, data: bytes) -> None:
        caught = error(data)
        assert caught.status_hint is None
        assert caught.request is None


class TestRefuse:
    """What is refused is refused with an answer that its sender can match."""

    @pytest.mark.parametrize(
        ("old", "new", "status", "text"),
        [
            ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", 505, "version"),
            ("INVITE sip:bob@biloxi.com", "INVITE", 400, "Request-URI"),
            ("sip:bob@biloxi.com SIP", "sip:bob@biloxi.com;a b SIP", 400, "Request-URI"),
            ("sip:bob@biloxi.com SIP", "bob@biloxi.com SIP", 400, "scheme"),
            ("sip:bob@biloxi.com SIP", "sip:bob@ SIP", 400, "host"),
            ("Max-Forwards: 70", "Max-Forwards 70", 400, "colon"),
            ("Max-Forwards: 70", ": 70", 400, "colon"),
            ("Max-Forwards: 70", "X: a\rb", 400, "CRLF"),
            ("Max-Forwards: 70", "X: a\nb", 400, "CRLF"),
            ("Max-Forwards: 70", "X: " + "a" * (MAX_HEADER_VALUE + 1), 400, "8192"),
            ("Content-Length: 4", "Content-Length: 5", 400, "only 4 bytes"),
            ("Content-Length: 4", "Content-Length: -4", 400, "Content-Length"),
            ("Content-Length: 4", "Content-Length: 2147483648", 400, "Content-Length"),
            ("Content-Length: 4", "Content-Length: " + "9" * 5000, 400, "Content-Length"),
            ("Content-Length: 4", "Content-Length: 4\r\nl: 4", 400, "Content-Length"),
            ("From: Alice <sip:alice@atlanta.com>;tag=9fxced76sl\r\n", "", 400, "From"),
            ("To: Bob", "To: Bob <sip:x@y>\r\nt: Bob", 400, "To"),
            ("To: Bob <sip:bob@biloxi.com>", 'To: "Bob <sip:bob@biloxi.com>', 400, "To"),
            ("To: Bob <sip:bob@biloxi.com>", "To: ", 400, "To"),
            ("Call-ID: 3848276298220188511@atlanta.com\r\n", "", 400, "Call-ID"),
            ("Call-ID: 3848276298220188511@atlanta.com", "Call-ID: a b", 400, "Call-ID"),
            ("Call-ID: 3848276298220188511@atlanta.com", "Call-ID:", 400, "Call-ID"),
            ("CSeq: 1 INVITE\r\n", "", 400, "CSeq"),
            ("CSeq: 1 INVITE", "CSeq: 1 BYE", 400, "CSeq"),
            ("CSeq: 1 INVITE", "CSeq: 4294967296 INVITE", 400, "CSeq"),
            ("Contact: <sip:alice", "Contact: <mailto:alice", 400, "Contact"),
            ("Contact: <sip:alice", "Contact: <sip:al@ice", 400, "Contact"),
            ("Contact: <sip:alice@client.atlanta.com;transport=tcp>", "Contact: alice", 400, "Contact"),
            ("Contact: <sip:alice", "m: <sip:other@atlanta.com>\r\nContact: <sip:alice", 400, "Contact"),
            ("Contact: <sip:alice", "Contact: <sip:other@atlanta.com>, <sip:alice", 400, "Contact"),
            (
                "Via: SIP/2.0/TCP client.atlanta.com:5060;",
                "Via: SIP/2.0/TCP client.atlanta.com:5060;;;",
                400,
                "Via",
            ),
        ],
    )
    def test_with_a_status(self, old: str, new: str, status: int, text: str) -> None:
        caught = error(edited(old, new))
        assert caught.status_hint == status
        assert text in caught.text
        assert caught.request is not None
        assert caught.request.top_via.host == "client.atlanta.com"
        assert caught.request.top_via.branch == "z9hG4bK74b43"
        answer = parse_message(bytes(create_response(caught.request, status, to_tag="x")))
        assert isinstance(answer, Response)
        assert answer.top_via.branch == "z9hG4bK74b43"

    def test_without_the_empty_line(self) -> None:
        caught = error(INVITE[: INVITE.index(b"\r\n\r\n") + 2])
        assert caught.status_hint == 400
        assert "empty line" in caught.text

    def test_too_many_headers(self) -> None:
        assert error(edited("Max-Forwards: 70\r\n", "X: y\r\n" * MAX_HEADERS)).status_hint == 400
        fitting = MAX_HEADERS - len(request().headers)
        validate_request(request(edited("Route", "X: y\r\n" * fitting + "Route")))

    def test_too_many_vias(self) -> None:
        via = "SIP/2.0/UDP h"
        lines = edited("Max-Forwards", f"Via: {via}\r\n" * MAX_VIAS + "Max-Forwards")
        assert error(lines).status_hint == 400
        elements = edited("Max-Forwards", f"v: {', '.join([via] * MAX_VIAS)}\r\nMax-Forwards")
        caught = error(elements)
        assert caught.status_hint == 400
        assert caught.request is not None
        assert len(caught.request.vias) <= MAX_VIAS

    def test_too_long(self) -> None:
        assert error(INVITE + b"x" * MAX_MESSAGE).status_hint == 513
        assert error(b"INVITE " + b"x" * 2 * MAX_MESSAGE).status_hint is None

    def test_an_ack_is_never_answered(self) -> None:
        caught = error(INVITE.replace(b"INVITE", b"ACK").replace(b"To: Bob", b"X: "))
        assert caught.status_hint is None
        assert caught.request is None

    @pytest.mark.parametrize("via", ["", "Via: x\r\n", "Via: \r\n", "Via: SIP/2.0/UDP\r\n"])
    def test_without_a_via_there_is_nowhere_to_answer(self, via: str) -> None:
        caught = error(edited("Via: SIP/2.0/TCP client.atlanta.com:5060;branch=z9hG4bK74b43\r\n", via))
        assert caught.status_hint is None
        assert "Via" in caught.text

    def test_a_lone_line_break_is_not_mirrored(self) -> None:
        caught = error(edited("tag=9fxced76sl", "tag=x\nRoute: <sip:evil>"))
        assert caught.request is not None
        answer = bytes(create_response(caught.request, 400))
        assert answer.count(b"\n") == answer.count(b"\r\n")
        assert b"\r\nRoute" not in answer

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("Max-Forwards", "Via: SIP/2.0/UDP other\r\nMax-Forwards"),
            ("Via: SIP/2.0/TCP client.atlanta.com:5060;branch=z9hG4bK74b43\r\n", ""),
            ("CSeq: 1 INVITE", "CSeq: 9999999999 INVITE"),
            ("To: Bob <sip:bob@biloxi.com>\r\n", ""),
            ("Content-Length: 4", "Content-Length: 9"),
        ],
    )
    def test_broken_responses_are_dropped(self, old: str, new: str) -> None:
        data = edited("INVITE sip:bob@biloxi.com SIP/2.0", "SIP/2.0 200 OK")
        caught = error(edited(old, new, data))
        assert caught.status_hint is None
        assert caught.request is None

    def test_an_unknown_method_with_another_cseq(self) -> None:
        assert error(edited("INVITE sip", "NEWMETHOD sip")).status_hint == 501

    def test_contact_star_belongs_to_register(self) -> None:
        data = INVITE.replace(b"INVITE", b"REGISTER").replace(
            b"<sip:alice@client.atlanta.com;transport=tcp>", b"*"
        )
        register = request(data)
        validate_request(register)
        assert register.contact is None


class TestTypedViews:
    def test_a_missing_header_is_named(self) -> None:
        empty = Request("INVITE", "sip:a@b")
        for view in ("top_via", "from_", "to", "call_id", "cseq"):
            with pytest.raises(HeaderError, match="missing"):
                getattr(empty, view)
        assert (empty.contact, empty.content_type, empty.max_forwards, empty.vias) == (None, None, None, [])
        with pytest.raises(UriError):
            _ = Request("INVITE", "nowhere").request_uri

    def test_they_are_parsed_once_and_follow_changes(self) -> None:
        invite = request()
        assert invite.from_ is invite.from_
        invite.headers.set("From", "<sip:carol@chicago.com>;tag=2")
        assert invite.from_.tag == "2"
        invite.headers.set_first("Via", str(invite.top_via.with_param("received", "192.0.2.1")))
        assert invite.top_via.received == "192.0.2.1"

    @pytest.mark.parametrize(
        ("value", "number"), [("0", 0), ("255", 255), ("256", None), ("x", None), ("-1", None)]
    )
    def test_max_forwards(self, value: str, number: int | None) -> None:
        assert Request("OPTIONS", "sip:a", headers=Headers([("Max-Forwards", value)])).max_forwards == number


class TestWrite:
    def test_content_length_is_always_right(self) -> None:
        head = [("Via", "SIP/2.0/UDP h"), ("l", "77"), ("X", "y")]
        data = bytes(Request("INFO", "sip:a@b", headers=Headers(head), body=b"abc"))
        assert data == b"INFO sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nl: 3\r\nX: y\r\n\r\nabc"
        data = bytes(Request("INFO", "sip:a@b", headers=Headers([("CONTENT-LENGTH", "1"), ("l", "2")])))
        assert data == b"INFO sip:a@b SIP/2.0\r\nCONTENT-LENGTH: 0\r\n\r\n"
        assert bytes(Response(200, "OK")) == b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"

    @pytest.mark.parametrize(
        "message",
        [
            Request("INVITE", "sip:a@b SIP/2.0\r\nRoute: <sip:evil>"),
            Request("IN\nVITE", "sip:a@b"),
            Response(200, "OK\r\nX: y"),
        ],
    )
    def test_no_line_break_gets_into_the_start_line(self, message: Request | Response) -> None:
        with pytest.raises(ValueError, match="line break"):
            bytes(message)

    def test_half_a_surrogate_does_not_raise(self) -> None:
        assert b"X: ?" in bytes(Request("INFO", "sip:a@b", headers=Headers([("X", "\ud800")])))


class TestCreateResponse:
    def test_mirrors(self) -> None:
        # RFC 3261 section 8.2.6.2, byte for byte.
        invite = request(TELNYX)
        response = create_response(
            invite,
            200,
            to_tag="7",
            headers=[("Contact", "<sip:us>")],
            body=b"v=0",
            content_type="application/sdp",
        )
        for name in ("Via", "Record-Route", "From", "Call-ID", "CSeq"):
            assert response.headers.get_all(name) == invite.headers.get_all(name)
        assert response.headers.get("To") == "<sip:+13035551111@10.0.0.9:5060>;tag=7"
        assert (response.status, response.reason) == (200, "OK")
        again = parse_message(bytes(response))
        assert again.body == b"v=0"
        assert again.headers.get("Content-Type") == "application/sdp"
        assert again.headers.get("Content-Length") == "3"
        assert again.to.tag == "7"

    @pytest.mark.parametrize(
        ("status", "mirrored"), [(100, 0), (180, 3), (183, 3), (200, 3), (302, 0), (486, 0)]
    )
    def test_record_route_where_a_dialog_can_be_made(self, status: int, mirrored: int) -> None:
        assert create_response(request(TELNYX), status).headers.count("Record-Route") == mirrored
        options = request(TELNYX.replace(b"INVITE", b"OPTIONS"))
        assert create_response(options, status).headers.count("Record-Route") == 0

    def test_a_tag_that_is_there_stays(self) -> None:
        bye = request(
            INVITE.replace(b"INVITE", b"BYE").replace(b"To: Bob <sip:bob@biloxi.com>", b"To: <sip:b@c>;tag=0")
        )
        assert create_response(bye, 200, to_tag="1").headers.get("To") == "<sip:b@c>;tag=0"
        assert create_response(request(), 100).to.tag is None

    def test_a_refusal_does_not_repeat_what_it_refuses(self) -> None:
        caught = error(edited("To: Bob", "To: <sip:x@y>\r\nt: Bob"))
        assert caught.request is not None
        assert create_response(caught.request, 400, to_tag="1").headers.get_all("To") == ["<sip:x@y>;tag=1"]

    def test_timestamp_goes_into_a_100_alone(self) -> None:
        invite = request(edited("Max-Forwards: 70", "Timestamp: 54.2"))
        assert create_response(invite, 100).headers.get("Timestamp") == "54.2"
        assert "Timestamp" not in create_response(invite, 180).headers

    def test_reasons(self) -> None:
        assert create_response(request(), 488).reason == REASONS[488] == "Not Acceptable Here"
        assert create_response(request(), 488, "No codec").reason == "No codec"
        assert create_response(request(), 488, "").reason == ""
        assert reason_phrase(499) == "Client Error"
        assert all(100 <= status <= 699 for status in REASONS)

    def test_content_type_needs_a_body(self) -> None:
        assert "Content-Type" not in create_response(request(), 200, content_type="application/sdp").headers

    def test_headers_that_cannot_be_sent(self) -> None:
        with pytest.raises(HeaderError):
            create_response(request(), 302, headers=[("Contact", "<sip:a>\r\nX: y")])


def test_methods() -> None:
    # The IANA registry of SIP methods.
    assert len(METHODS) == 14
    assert {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "REFER", "NOTIFY", "PRACK"} <= METHODS


tokens = st.text("abcXYZ09-.!%*_+`'~", min_size=1, max_size=12)
values = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40)
    .map(lambda text: text.strip(" \t"))
    .filter(lambda text: len(text) < 100)
)
fields = st.lists(st.tuples(tokens.filter(lambda name: name.lower() not in ("l", "v")), values), max_size=8)


@given(tokens, tokens.map("sip:".__add__), fields, st.binary(max_size=50))
def test_request_round_trip(method: str, uri: str, items: list[tuple[str, str]], body: bytes) -> None:
    read = parse_message(bytes(Request(method, uri, headers=Headers(items), body=body)))
    assert isinstance(read, Request)
    assert (read.method, read.uri, read.body) == (method, uri, body)
    assert list(read.headers) == [*items, ("Content-Length", str(len(body)))]
    assert parse_message(bytes(read)).headers == read.headers


@given(st.integers(100, 699), values, fields, st.binary(max_size=50))
def test_response_round_trip(status: int, reason: str, items: list[tuple[str, str]], body: bytes) -> None:
    read = parse_message(bytes(Response(status, reason, headers=Headers(items), body=body)))
    assert isinstance(read, Response)
    assert (read.status, read.reason, read.body) == (status, reason, body)
    assert list(read.headers) == [*items, ("Content-Length", str(len(body)))]


def handle(data: bytes) -> None:
    """Receive and answer; only `MessageError` may come out of receiving, and nothing out of answering."""
    try:
        message = receive(data)
    except MessageError as caught:
        refusal = caught
    else:
        accept(message)
        return
    assert (refusal.status_hint is None) == (refusal.request is None)
    if refusal.request is not None and refusal.status_hint is not None:
        assert refusal.request.method != "ACK"
        answer = parse_message(bytes(create_response(refusal.request, refusal.status_hint, to_tag="x")))
        assert answer.top_via == refusal.request.top_via


def accept(message: Request | Response) -> None:
    assert message.top_via.host
    _ = message.from_.tag, message.to.tag, message.call_id, message.cseq, message.max_forwards
    if isinstance(message, Request):
        _ = message.contact, message.request_uri
        answer = parse_message(bytes(create_response(message, 200, to_tag="x")))
        assert isinstance(answer, Response)
        assert answer.top_via == message.top_via
        assert answer.to.tag
        assert answer.cseq == message.cseq
    again = parse_message(bytes(message))
    assert again.headers.get_all("Via") == message.headers.get_all("Via")


PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b":",
    b";",
    b",",
    b'"',
    b"<",
    b">",
    b"\\",
    b"\xff",
    b"\x00",
    b"@",
    b"=",
    b"%",
]
seeds = st.sampled_from([INVITE, TELNYX, edited("INVITE sip:bob@biloxi.com SIP/2.0", "SIP/2.0 200 OK")])


@given(st.binary() | st.binary().map(b"INVITE sip:a@b SIP/2.0\r\nVia: ".__add__))
def test_any_bytes_parse_or_raise_a_message_error(data: bytes) -> None:
    handle(data)


@given(
    seeds, st.lists(st.tuples(st.integers(0, 900), st.integers(0, 30), st.sampled_from(PIECES)), max_size=6)
)
def test_damaged_messages_parse_or_raise_a_message_error(
    data: bytes, cuts: list[tuple[int, int, bytes]]
) -> None:
    for at, length, piece in cuts:
        data = data[:at] + piece + data[at + length :]
    handle(data)


@pytest.mark.parametrize(
    "data",
    [
        b'"' * 60_000,
        b"INVITE sip:a@b SIP/2.0\r\n" + b";" * 60_000,
        b"INVITE sip:a@b SIP/2.0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n" + b"Via: SIP/2.0/UDP h\r\n" * 500 + b"\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n" + b"\r\n " * 20_000,
        b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h" + b";a" * 4000 + b";;\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h" + b";," * 4000 + b"\r\n\r\n",
        b"INVITE sip:" + b"a" * 60_000 + b" SIP/2.0\r\n\r\n",
        b"INVITE " + b" " * 60_000 + b" SIP/2.0\r\n\r\n",
        b"\r\n" * 30_000,
        INVITE.replace(b"Alice", b'"' + b"\\" * 8000 + b'"'),
        INVITE.replace(b"Alice", b"<" * 8000),
        INVITE.replace(b"<sip:alice@client", b"," * 8000 + b"<sip:alice@client"),
    ],
    ids=range(13),
)
def test_messages_made_to_hurt_are_cheap(data: bytes) -> None:
    start = time.process_time()
    for _ in range(10):
        handle(data)
    # Milliseconds each; anything quadratic takes minutes.
    assert time.process_time() - start < 5


def test_a_line_that_is_not_utf8_goes_out_as_it_came_name_and_all() -> None:
    line = b"X-Na\xefve: caf\xe9"
    raw = INVITE.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n", 1)
    assert line in bytes(parse_message(bytes(parse_message(raw))))
