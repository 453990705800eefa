"""
RFC 4475: one verdict per message, as the RFC classifies it.

`VERDICTS` names for each file the section, what becomes of the message, and the layer that has to see to it:

- `text`: parsing and validation decide, and this file asserts it.
- `uas`: the text is well formed and must parse; what a user agent then answers (`status`) is its own affair.
- `uac`: the same for responses.

Where the RFC leaves a choice between refusing and forgiving, the row says what was chosen, and why.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Literal

import pytest

from offhook.sip.framing import FramingError, MessageFrame, StreamFramer
from offhook.sip.headers import (
    CSeq,
    HeaderError,
    NameAddr,
    parse_content_type,
    parse_int,
    parse_name_addr,
)
from offhook.sip.message import (
    MessageError,
    Request,
    Response,
    create_response,
    parse_message,
    validate_request,
    validate_response,
)
from offhook.sip.multipart import body_parts
from offhook.sip.uri import SipUri, UriError
from offhook.sip.via import Via

MESSAGES = pathlib.Path(__file__).parent / "rfc4475"


@dataclass(frozen=True)
class Verdict:
    section: str
    outcome: Literal["accepted", "refused", "dropped"]
    layer: Literal["text", "uas", "uac"] = "text"
    status: int | None = None
    "What a request is answered with; for layer `uas` by an agent that takes INVITE and OPTIONS, with SDP, at any user."
    note: str = ""


def accepted(section: str, note: str = "", *, layer: Literal["text", "uas", "uac"] = "text") -> Verdict:
    return Verdict(section, "accepted", layer, None, note)


def refused(section: str, status: int, note: str = "", *, layer: Literal["text", "uas"] = "text") -> Verdict:
    return Verdict(section, "refused", layer, status, note)


def dropped(section: str, note: str = "", *, layer: Literal["text", "uac"] = "text") -> Verdict:
    return Verdict(section, "dropped", layer, None, note)


VERDICTS = {
    # 3.1.1 Parser tests: valid messages
    "wsinv": accepted("3.1.1.1", "white space, folding and compact names everywhere"),
    "intmeth": refused("3.1.1.2", 501, "every legal character; a method nobody implements", layer="uas"),
    "esc01": accepted(
        "3.1.1.3", "%-escapes stay as they are; a user of `sips:user@example.com` is no SIPS URI"
    ),
    "escnull": refused("3.1.1.4", 405, "%00 is legal; REGISTER is not offered here", layer="uas"),
    "esc02": refused(
        "3.1.1.5", 501, "% is only a character in a method, a name, a display name", layer="uas"
    ),
    "lwsdisp": accepted("3.1.1.6", "no space between display name and <"),
    "longreq": accepted("3.1.1.7"),
    "dblreq": refused("3.1.1.8", 405, "what follows Content-Length is ignored on UDP", layer="uas"),
    "semiuri": accepted("3.1.1.9", "the semicolon is in the user part"),
    "transports": accepted("3.1.1.10", "unknown transports in Via"),
    "mpart01": refused("3.1.1.11", 405, "a binary part with NULs; MESSAGE is not offered here", layer="uas"),
    "unreason": accepted("3.1.1.12", "UTF-8 in the reason phrase"),
    "noreason": accepted("3.1.1.13", "an empty reason phrase"),
    # 3.1.2 Parser tests: invalid messages
    "badinv01": refused("3.1.2.1", 400),
    "clerr": refused("3.1.2.2", 400, "on a stream: wait for the rest"),
    "ncl": refused("3.1.2.3", 400),
    "scalar02": refused("3.1.2.4", 400, "for CSeq; Max-Forwards 300 alone counts as absent"),
    "scalarlg": dropped("3.1.2.5"),
    "quotbal": refused("3.1.2.6", 400, "the RFC allows guessing the quote; a guess can name the wrong party"),
    "ltgtruri": refused("3.1.2.7", 400),
    "lwsruri": refused("3.1.2.8", 400),
    "lwsstart": accepted("3.1.2.9", "may be refused; nothing is ambiguous, so it is not"),
    "trws": accepted("3.1.2.10", "may be refused; nothing is ambiguous, so it is not"),
    "escruri": accepted("3.1.2.11", "may be refused; the embedded header is ignored"),
    "baddate": accepted("3.1.2.12", "may be refused; Date is not needed, so not looked at"),
    "regbadct": refused(
        "3.1.2.13", 400, "the RFC allows inferring <>; without them the URI's end is a guess"
    ),
    "badaspec": accepted("3.1.2.14", "may be refused; the spaces inside <> are ignored"),
    "baddn": accepted("3.1.2.15", "may be refused; the quotes are inferred"),
    "badvers": refused("3.1.2.16", 505),
    "mismatch01": refused("3.1.2.17", 400),
    "mismatch02": refused("3.1.2.18", 501, "400 would do; 501 is better for methods to come"),
    "bigcode": dropped("3.1.2.19"),
    # 3.2 Transaction layer semantics
    "badbranch": accepted("3.2.1", "may be refused; matched as RFC 2543 does", layer="uas"),
    # 3.3 Application layer semantics
    "insuf": refused("3.3.1", 400),
    "unkscm": refused("3.3.2", 416, layer="uas"),
    "novelsc": refused("3.3.3", 416, layer="uas"),
    "unksm2": refused("3.3.4", 405, "a registrar says 400; REGISTER is not offered here", layer="uas"),
    "bext01": refused("3.3.5", 420, "Unsupported lists what Require names, not Proxy-Require", layer="uas"),
    "invut": refused("3.3.6", 415, layer="uas"),
    "regaut01": refused("3.3.7", 405, "a registrar challenges; REGISTER is not offered here", layer="uas"),
    "multi01": refused("3.3.8", 400),
    "mcl01": refused("3.3.9", 400, "on a stream: and closed"),
    "bcast": dropped("3.3.10", "the second Via is not ours"),
    "zeromf": accepted("3.3.11", "Max-Forwards 0 stops proxies, not the final recipient"),
    "cparam01": refused("3.3.12", 405, "REGISTER is not offered here", layer="uas"),
    "cparam02": refused("3.3.13", 405, "REGISTER is not offered here", layer="uas"),
    "regescrt": refused("3.3.14", 405, "REGISTER is not offered here", layer="uas"),
    "sdp01": refused("3.3.15", 406, "Accept leaves no room for an SDP answer", layer="uas"),
    # 3.4 Backward compatibility
    "inv2543": accepted(
        "3.4.1", "no branch, From without tag, no Max-Forwards, no Contact, no Content-Length"
    ),
}
NAMES = sorted(VERDICTS)


def octets(name: str) -> bytes:
    return (MESSAGES / f"{name}.dat").read_bytes()


def receive(name: str) -> Request | Response:
    """Parse and validate, as the stack does with a datagram."""
    message = parse_message(octets(name))
    if isinstance(message, Request):
        validate_request(message)
    else:
        validate_response(message)
    return message


def receive_request(name: str) -> Request:
    message = receive(name)
    assert isinstance(message, Request)
    return message


def receive_response(name: str) -> Response:
    message = receive(name)
    assert isinstance(message, Response)
    return message


def test_every_file_has_a_verdict_and_every_verdict_a_file() -> None:
    assert {path.stem for path in MESSAGES.glob("*.dat")} == set(VERDICTS)
    assert len(VERDICTS) == 49


def test_every_section_has_one_message() -> None:
    sections = [verdict.section for verdict in VERDICTS.values()]
    expected = [
        *[f"3.1.1.{n}" for n in range(1, 14)],
        *[f"3.1.2.{n}" for n in range(1, 20)],
        "3.2.1",
        *[f"3.3.{n}" for n in range(1, 16)],
        "3.4.1",
    ]
    assert sections.count("3.1.1.4") == 1
    assert sorted(sections) == sorted(expected)


@pytest.mark.parametrize("name", NAMES)
def test_verdict(name: str) -> None:
    verdict = VERDICTS[name]
    if verdict.outcome == "accepted" or verdict.layer != "text":
        receive(name)
        return
    with pytest.raises(MessageError) as caught:
        receive(name)
    error = caught.value
    assert error.text
    assert error.status_hint == verdict.status
    if verdict.outcome == "dropped":
        assert error.request is None
        return
    # It must be possible to say so: with a Via that a response can follow.
    assert error.request is not None
    assert error.request.top_via.host
    answer = parse_message(bytes(create_response(error.request, verdict.status or 0, to_tag="x")))
    assert isinstance(answer, Response)
    assert answer.status == verdict.status
    for header in ("From", "Call-ID", "CSeq"):
        assert answer.headers.get_all(header) == error.request.headers.get_all(header)[:1]


@pytest.mark.parametrize("name", [name for name in NAMES if VERDICTS[name].outcome == "accepted"])
def test_what_is_accepted_survives_being_written_and_read(name: str) -> None:
    first = receive(name)
    again = parse_message(bytes(first))
    assert type(again) is type(first)
    assert list(again.headers)[: len(first.headers)] == list(first.headers)
    assert again.body == first.body
    assert again.top_via == first.top_via
    assert again.from_ == first.from_


# What the accepted ones say. Section numbers are in the table above.


def test_wsinv() -> None:
    request = receive_request("wsinv")
    assert (request.method, request.uri) == ("INVITE", "sip:vivekg@chair-dnrc.example.com;unknownparam")
    assert request.request_uri.has_param("unknownparam")
    assert request.to.uri == SipUri("sip", "vivekg", "chair-dnrc.example.com")
    assert request.to.tag == "1918181833n"
    assert request.from_.display_name == 'J Rosenberg \\"'
    assert request.from_.tag == "98asjd8"
    assert request.max_forwards == 68
    assert request.cseq == CSeq(9, "INVITE")
    assert request.call_id == "wsinv.ndaksdj@192.0.2.1"
    assert request.headers.get("Subject") == ""
    assert request.headers.get("NewFangledHeader") == "newfangled value continued newfangled value"
    assert request.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    assert request.headers.values("Route") == [
        "<sip:services.example.com;lr;unknownwith=value;unknown-no-value>"
    ]
    assert request.vias == [
        Via("UDP", "192.0.2.2", None, (("branch", "390skdjuw"),)),
        Via("TCP", "spindle.example.com", None, (("branch", "z9hG4bK9ikj8"),)),
        Via("UDP", "192.168.255.111", None, (("branch", "z9hG4bK30239"),)),
    ]
    assert request.contact == NameAddr(
        'Quoted string ""',
        SipUri("sip", "jdrosen", "example.com"),
        (("newparam", "newvalue"), ("secondparam", None), ("q", "0.33")),
    )
    assert len(request.body) == 150


def test_intmeth() -> None:
    request = receive_request("intmeth")
    assert request.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert request.cseq == CSeq(139122385, request.method)
    uri = request.request_uri
    assert uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert uri.host == "example.com"
    assert request.to.display_name == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert isinstance(request.to.uri, SipUri)
    assert request.to.uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert request.from_.display_name == "token1~` token2'+_ token3*%!.-"
    assert request.from_.param("fromParam''~+*_!.-%") == "работающий"
    assert request.from_.tag == "_token~1'+`*%!-."
    assert request.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert request.top_via.branch == "z9hG4bK-.!%66*_+`'~"
    assert request.max_forwards == 255
    assert request.headers.get("extensionHeader-!.%*+_`'~") == "\ufeff大停電"


def test_esc01() -> None:
    request = receive_request("esc01")
    assert request.request_uri == SipUri("sip", "sips%3Auser%40example.com", "example.net")
    assert isinstance(request.from_.uri, SipUri)
    assert request.from_.uri.user == "I%20have%20spaces"
    assert request.contact is not None
    assert isinstance(request.contact.uri, SipUri)
    assert request.contact.uri.params == (("%6C%72", None), ("n%61me", "v%61lue%25%34%31"))
    assert not request.contact.uri.has_param("lr")


def test_escnull() -> None:
    request = receive_request("escnull")
    users = [parse_name_addr(contact).uri.user for contact in request.headers.values("Contact")]  # type: ignore[union-attr]
    assert users == ["%00", "%00%00"]
    assert request.body == b""


def test_esc02() -> None:
    request = receive_request("esc02")
    assert request.method == "RE%47IST%45R"
    assert request.to.display_name == "%Z%45"
    assert request.top_via.branch == "z9hG4bK209%fzsnel234"
    assert request.headers.get_all("Contact") == [
        "<sip:alias1@host1.example.com>",
        "<sip:alias3@host3.example.com>",
    ]
    assert request.headers.get("C%6Fntact") == "<sip:alias2@host2.example.com>"


def test_lwsdisp() -> None:
    request = receive_request("lwsdisp")
    assert request.from_ == NameAddr("caller", SipUri("sip", "caller", "example.com"), (("tag", "323"),))


def test_longreq() -> None:
    request = receive_request("longreq")
    assert len(request.vias) == 34
    assert request.top_via.host == "sip33.example.com"
    assert request.vias[-1].received == "192.0.2.5"
    assert request.to.display_name.startswith("I have a user name of extreme")
    assert isinstance(request.to.uri, SipUri)
    assert request.to.uri.port == 6000
    assert request.to.uri.param("longparam" + "name" * 25) == "shortvalue"
    assert request.from_.tag is not None
    assert len(request.from_.tag) > 100
    assert request.from_.has_param("unknownheaderparam" + "name" * 20)


def test_dblreq() -> None:
    request = receive_request("dblreq")
    assert (request.method, request.body) == ("REGISTER", b"")
    assert request.call_id == "dblreq.0ha0isndaksdj99sdfafnl3lk233412"


def test_dblreq_on_a_stream_is_two_messages() -> None:
    # On a stream the octets after the first message are the second one. Its Content-Length is one octet short of
    # its body, so what follows is no message and ends the connection.
    with pytest.raises(FramingError) as caught:
        StreamFramer().receive_data(octets("dblreq"))
    assert caught.value.answer is None
    first, second = [
        parse_message(frame.data) for frame in caught.value.frames if isinstance(frame, MessageFrame)
    ]
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.method, second.method, len(second.body)) == ("REGISTER", "INVITE", 150)


def test_semiuri() -> None:
    request = receive_request("semiuri")
    assert request.request_uri == SipUri("sip", "user;par=u%40example.net", "example.com")
    assert request.headers.values("Accept") == [
        "application/sdp",
        "application/pkcs7-mime",
        "multipart/mixed",
        "multipart/signed",
        "message/sip",
        "message/sipfrag",
    ]


def test_transports() -> None:
    request = receive_request("transports")
    assert [via.transport for via in request.vias] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]


def test_mpart01() -> None:
    request = receive_request("mpart01")
    assert len(request.body) == 553
    text, binary = body_parts(request)
    assert (text.content_type.media_type, text.body) == ("text/plain", b"Hello")
    assert binary.content_type.media_type == "application/octet-stream"
    assert binary.headers.get("Content-Transfer-Encoding") == "binary"
    assert binary.body.startswith(b"0\x82")
    assert b"\x00" in binary.body
    assert binary.body.endswith(b"\x99\xd0\x05")


def test_unreason() -> None:
    response = receive_response("unreason")
    assert response.status == 200
    assert response.reason == "= 2**3 * 5**2 но сто девяносто девять - простое"
    assert len(response.body) == 154


def test_noreason() -> None:
    response = receive_response("noreason")
    assert (response.status, response.reason) == (100, "")


def test_clerr_on_a_stream_waits_for_the_rest() -> None:
    framer = StreamFramer()
    assert framer.receive_data(octets("clerr")) == []
    assert framer.buffered == len(octets("clerr"))


def test_scalar02() -> None:
    request = parse_message(octets("scalar02"))
    with pytest.raises(HeaderError) as caught:
        _ = request.cseq
    assert (caught.value.header, caught.value.value) == ("CSeq", "36893488147419103232")
    assert request.max_forwards is None
    with pytest.raises(HeaderError):
        parse_int("Expires", request.headers.get("Expires") or "")
    assert request.contact is not None
    assert request.contact.param("expires") == "280297596632815"


def test_ltgtruri_is_no_uri() -> None:
    request = parse_message(octets("ltgtruri"))
    assert isinstance(request, Request)
    with pytest.raises(UriError):
        _ = request.request_uri


@pytest.mark.parametrize("name", ["lwsstart", "trws"])
def test_extra_spaces_of_a_request_line_are_not_passed_on(name: str) -> None:
    request = receive_request(name)
    assert bytes(request).startswith(f"{request.method} {request.uri} SIP/2.0\r\n".encode())
    assert " " not in request.uri


def test_escruri() -> None:
    request = receive_request("escruri")
    assert request.request_uri.headers == "Route=%3Csip:example.com%3E"
    assert "Route" not in request.headers


def test_baddate() -> None:
    assert receive_request("baddate").headers.get("Date") == "Fri, 01 Jan 2010 16:00:00 EST"


def test_badaspec() -> None:
    request = receive_request("badaspec")
    assert request.to == NameAddr("Watson, Thomas", SipUri("sip", "t.watson", "example.org"))


def test_baddn() -> None:
    request = receive_request("baddn")
    assert request.from_ == NameAddr(
        "Bell, Alexander", SipUri("sip", "a.g.bell", "example.com"), (("tag", "43"),)
    )
    assert str(request.from_).startswith('"Bell, Alexander" <')


def test_badbranch() -> None:
    assert receive_request("badbranch").top_via.branch == "z9hG4bK"


def test_unknown_schemes() -> None:
    assert receive_request("unkscm").request_uri == SipUri(
        "nobodyknowsthisscheme", "totallyopaquecontent", ""
    )
    assert receive_request("novelsc").request_uri.scheme == "soap.beep"
    request = receive_request("unksm2")
    assert request.to.uri == "isbn:2983792873"
    assert request.from_ == NameAddr("", "http://www.example.com", (("tag", "3234233"),))
    assert request.contact is not None
    assert request.contact.uri == "name:John_Smith"


def test_bext01() -> None:
    request = receive_request("bext01")
    assert request.headers.values("Require") == ["nothingSupportsThis", "nothingSupportsThisEither"]
    assert request.headers.values("Proxy-Require") == ["noProxiesSupportThis", "norDoAnyProxiesSupportThis"]
    assert request.top_via.transport == "TLS"


def test_invut() -> None:
    request = receive_request("invut")
    assert request.content_type is not None
    assert request.content_type.media_type == "application/unknownformat"
    assert request.body.startswith(b"<audio>\r\n")
    assert len(request.body) == 40


def test_regaut01() -> None:
    assert receive_request("regaut01").headers.get("Authorization") == "NoOneKnowsThisScheme opaque-data=here"


def test_zeromf() -> None:
    assert receive_request("zeromf").max_forwards == 0


def test_contact_parameters_and_uri_parameters_are_told_apart() -> None:
    without_brackets = receive_request("cparam01").contact
    assert without_brackets == NameAddr(
        "", SipUri("sip", "+19725552222", "gw1.example.net"), (("unknownparam", None),)
    )
    with_brackets = receive_request("cparam02").contact
    assert with_brackets == NameAddr(
        "", SipUri("sip", "+19725552222", "gw1.example.net", params=(("unknownparam", None),))
    )


def test_regescrt() -> None:
    contact = receive_request("regescrt").contact
    assert contact is not None
    assert contact.uri == SipUri("sip", "user", "example.com", headers="Route=%3Csip:sip.example.com%3E")


def test_sdp01() -> None:
    request = receive_request("sdp01")
    assert [str(parse_content_type(value)) for value in request.headers.values("Accept")] == [
        "text/nobodyknowsthis"
    ]


def test_inv2543() -> None:
    request = receive_request("inv2543")
    assert request.top_via == Via("UDP", "iftgw.example.com", None)
    assert request.top_via.branch is None
    assert request.from_.tag is None
    assert request.max_forwards is None
    assert request.contact is None
    assert request.headers.values("Record-Route") == ["<sip:UserB@example.com;maddr=ss1.example.com>"]
    assert request.to.params == (("user", "phone"),)
    assert "Content-Length" not in request.headers
    assert request.body.endswith(b"m=audio 49217 RTP/AVP 0\r\n")
