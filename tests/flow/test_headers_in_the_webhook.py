"""
What an app learns of an INVITE: `sip_headers` of the webhook, verified by the openai package over the raw body.

Every header, in order, repeats kept, values whole; without credentials. A compact name is given in full, so that an
app finds `From` whatever the trunk; any other name is as the trunk spelt it.
"""

import asyncio
import base64
import json
import os
import re

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, SIGNALWIRE, TELNYX, TWILIO, bend, sdp_of, with_body, write
from testbed.trunk import Trunk, TrunkCall

COMPACT = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
    "e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "n": "Identity-Info", "o": "Event", "r": "Refer-To", "s": "Subject",
    "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
}  # fmt: skip
"The IANA registry of compact forms."


@pytest.fixture
async def trunk(node: Node):
    async with Trunk(node.sip["udp"], "udp") as ready:
        yield ready


async def told(trunk: Trunk, app: DeveloperApp, invite: str | bytes) -> list[tuple[str, str]]:
    """Let it ring and hang up; return what the app was told."""
    trunk.send(invite)
    await trunk.expect("SIP/2.0 180")
    webhook = await app.incoming()
    headers = [(header.name, header.value) for header in webhook.event.data.sip_headers]
    # The same from the body that was signed, byte for byte what a JSON parser of another language reads.
    body = json.loads(webhook.body.decode("utf-8"))
    assert [(each["name"], each["value"]) for each in body["data"]["sip_headers"]] == headers
    assert all(set(each) == {"name", "value"} for each in body["data"]["sip_headers"])
    text = invite.decode("latin-1") if isinstance(invite, bytes) else invite
    trunk.send(TrunkCall(trunk, text).hop_request("CANCEL").encode("latin-1", "replace"))
    await trunk.expect("SIP/2.0 487")
    return headers


def lines_of(invite: str) -> list[tuple[str, str]]:
    """Return the headers that the app should see, Via apart: the first has our `received` in it."""
    found = []
    for line in re.sub(r"\r\n[ \t]+", " ", invite.partition("\r\n\r\n")[0]).split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name = COMPACT.get(name.strip().lower(), name.strip())
        if name.lower() != "via":
            found.append((name, value.strip()))
    return found


def with_lines(invite: str, *lines: str) -> str:
    return bend(invite, ("Max-Forwards: 70", "\r\n".join([*lines, "Max-Forwards: 70"])))


def values(headers: list[tuple[str, str]], name: str) -> list[str]:
    return [value for found, value in headers if found == name]


@pytest.mark.parametrize(
    "carrier", [TWILIO, TELNYX, SIGNALWIRE, PLAIN], ids=["twilio", "telnyx", "signalwire", "plain"]
)
async def test_a_carriers_invite_arrives_whole_and_in_order(
    trunk: Trunk, app: DeveloperApp, carrier: str
) -> None:
    invite = write(carrier, trunk, app.seat.project)
    headers = await told(trunk, app, invite)
    assert [pair for pair in headers if pair[0].lower() != "via"] == lines_of(invite)
    vias = [line for line in invite.split("\r\n") if re.match(r"v(ia)?\s*:", line, re.IGNORECASE)]
    assert len(values(headers, "Via")) == len(vias)


async def test_what_apps_look_for(trunk: Trunk, app: DeveloperApp) -> None:
    """TRUNKS.md sections 1 to 4: the headers that say who calls, by way of whom, and what the trunk calls the call."""
    lines = [
        "X-Twilio-CallSid: CA0123456789abcdef0123456789abcdef",
        "X-Twilio-VerStat: TN-Validation-Passed-A",
        "X-Foo: bar",
        "x-foo: again",
        "User-to-User: 48656c6c6f;encoding=hex;purpose=dial",
        "Diversion: <sip:+11234567890@twilio.com>;reason=unconditional",
        'Diversion: "Reception, main" <sip:+1555@x>;reason=no-answer;counter=2, <tel:+1666>',
        "P-Asserted-Identity: <sip:+10987654321@184.150.215.12:5060>",
        "P-Asserted-Identity: <tel:+10987654321>;verstat=TN-Validation-Passed-A",
        "P-Called-Party-ID: <sip:+498912345@telekom.example>",
        "Remote-Party-ID: <sip:+1555@sip.swire.io>;party=calling;screen=yes;privacy=off",
        "History-Info: <sip:a@b?Reason=SIP%3Bcause%3D302>;index=1",
        'P-Charging-Vector: icid-value="a=b;c,d";icid-generated-at=[2001:db8::1];orig-ioi="x\\"y"',
        "Geolocation: <cid:x@y>;inserted-by=[2001:db8::2]",
        "Reason: Q.850;cause=16",
        "Privacy: id",
    ]
    headers = await told(trunk, app, with_lines(write(PLAIN, trunk, app.seat.project), *lines))
    sent = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    at = headers.index(sent[0])
    assert headers[at : at + len(sent)] == sent


async def test_credentials_are_left_out_and_what_only_looks_like_them_is_not(
    trunk: Trunk, app: DeveloperApp
) -> None:
    secret = 'Digest username="trunk", realm="x", nonce="n", uri="sip:x", response="0123456789abcdef"'
    lines = [
        f"Authorization: {secret}",
        f"AUTHORIZATION: {secret}",
        f"proxy-authorization: {secret}",
        f"Proxy-Authorization :\r\n {secret[:20]}\r\n\t{secret[20:]}",
        "X-Authorization: kept",
        "P-Authorization-Token: kept too",
        "WWW-Authenticate: Digest realm=kept",
    ]
    headers = await told(trunk, app, with_lines(write(PLAIN, trunk, app.seat.project), *lines))
    assert not [name for name, _ in headers if name.lower() in ("authorization", "proxy-authorization")]
    assert "0123456789abcdef" not in app.webhooks[0].body.decode()
    assert [value for _, value in headers if "kept" in value] == ["kept", "kept too", "Digest realm=kept"]


@pytest.mark.parametrize("length", [1_025, 2_048, 4_000, 8_000])
async def test_long_values_are_whole(trunk: Trunk, app: DeveloperApp, length: int) -> None:
    """Identity and X-Twilio-CallToken pass a kilobyte; a peer that cut at 1,024 broke calls."""
    token = base64.urlsafe_b64encode(os.urandom(length))[:length].decode()
    invite = with_lines(
        write(PLAIN, trunk, app.seat.project),
        f"X-Twilio-CallToken: {token}",
        f"Identity: {token[::-1]};info=<https://c.example/p.cer>;alg=ES256;ppt=shaken"[:8_190],
        "Identity: eyJ..second;info=<https://c.example/d.cer>;alg=ES256;ppt=div",
    )
    headers = await told(trunk, app, invite)
    assert values(headers, "X-Twilio-CallToken") == [token]
    assert len(values(headers, "Identity")) == 2
    assert values(headers, "Identity")[0].startswith(token[::-1][:8_000])


async def test_a_value_above_the_cap_is_refused_and_nobody_is_told(trunk: Trunk, app: DeveloperApp) -> None:
    trunk.send(with_lines(write(PLAIN, trunk, app.seat.project), f"X-Token: {'y' * 8_193}"))
    refused = await trunk.expect("SIP/2.0 400")
    assert "X-Token" in refused.one("Warning")
    assert not app.webhooks


async def test_every_compact_name_is_given_in_full(trunk: Trunk, app: DeveloperApp) -> None:
    own = {"f", "t", "i", "m", "v", "c", "l"}
    lines = [f"{short}:value of {short}" for short in COMPACT if short not in own | {"e", "x"}]
    invite = with_lines(write(PLAIN, trunk, app.seat.project), *lines, "X: 1800", "q: no header's short name")
    for short in own - {"v"}:
        invite = re.sub(rf"(?m)^{COMPACT[short]}: ?", f"{short}:", invite)
    headers = await told(trunk, app, invite)
    for short in COMPACT.keys() - own - {"e", "x"}:
        assert f"value of {short}" in values(headers, COMPACT[short])
    assert values(headers, "Session-Expires") == ["1800"]
    assert values(headers, "q") == ["no header's short name"]
    for name in ("From", "To", "Call-ID", "Contact", "Content-Type", "Content-Length"):
        assert len(values(headers, name)) == 1
    assert not [name for name, _ in headers if len(name) == 1 and name != "q"]


async def test_folded_lines_are_one_value(trunk: Trunk, app: DeveloperApp) -> None:
    lines = [
        "Diversion:\r\n <sip:+1555@x>\r\n\t;reason=no-answer  \r\n   ;counter=2",
        "Subject:\r\n\r\n"[:-2] + " after an empty first line",
        "X-Empty:",
        "X-Spaces: \t a  b \t ",
    ]
    headers = await told(trunk, app, with_lines(write(PLAIN, trunk, app.seat.project), *lines))
    assert values(headers, "Diversion") == ["<sip:+1555@x> ;reason=no-answer ;counter=2"]
    assert values(headers, "Subject") == ["after an empty first line"]
    assert values(headers, "X-Empty") == [""]
    assert values(headers, "X-Spaces") == ["a  b"]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Jürgen Groß".encode(), "Jürgen Groß"),
        ("Jürgen Groß".encode("latin-1"), "Jürgen Groß"),
        ("日本 🙂".encode(), "日本 🙂"),
        # Broken UTF-8: each line that is none is read as Latin-1, so that no byte is lost.
        (b"cut \xe6\x97", "cut æ\x97"),
        (b"overlong \xc0\xaf", "overlong À¯"),
        (b"surrogate \xed\xa0\x80", "surrogate í\xa0\x80"),
        (b"\xff\xfe", "ÿþ"),
        (b"bell \x07, escape \x1b[31m, del \x7f", "bell \x07, escape \x1b[31m, del \x7f"),
        (b"nul \x00 byte", "nul \x00 byte"),
        (b'"quotes", back\\slash, <script>, tab\there', '"quotes", back\\slash, <script>, tab\there'),
    ],
)
async def test_bytes_that_are_no_plain_text(trunk: Trunk, app: DeveloperApp, raw: bytes, wanted: str) -> None:
    invite = with_lines(write(PLAIN, trunk, app.seat.project), "X-Name: HERE", "X-Next: Ünchanged").encode()
    headers = await told(trunk, app, invite.replace(b"HERE", raw))
    assert values(headers, "X-Name") == [wanted]
    # One odd line does not change how the others are read.
    assert values(headers, "X-Next") == ["Ünchanged"]


PIDF = '<?xml version="1.0"?>\r\n<presence entity="pres:a@b"/>'
ISUP = "\x01\x00\x49\x00\x00\x03\x02\x00\x07"

MULTIPART = {
    "sdp, pidf, isup": ("multipart/mixed;boundary=b1", "b1", ("sdp", "pidf", "isup")),
    "isup first": ('multipart/mixed; boundary="unique-boundary-1"', "unique-boundary-1", ("isup", "sdp")),
    "quoted boundary with spaces": ('Multipart/Mixed ; Boundary="a b\'c (d)"', "a b'c (d)", ("pidf", "sdp")),
    "escaped boundary": ('multipart/mixed;boundary="a\\+b"', "a+b", ("sdp", "pidf")),
    "charset on the whole": ("multipart/mixed;charset=utf-8;boundary=zz;type=x/y", "zz", ("sdp", "pidf")),
    "related": ('multipart/related;type="application/sdp";boundary=rr', "rr", ("sdp", "pidf")),
    "preamble and epilogue": ("multipart/mixed;boundary=pp", "pp", ("pidf", "sdp")),
}


@pytest.mark.parametrize("case", MULTIPART)
async def test_a_body_in_parts_is_a_call_and_its_headers_arrive(
    trunk: Trunk, app: DeveloperApp, case: str
) -> None:
    content_type, boundary, order = MULTIPART[case]
    plain = write(PLAIN, trunk, app.seat.project)
    parts = {
        "sdp": f'Content-Type: application/sdp;charset="utf-8"\r\nContent-Disposition: session\r\n\r\n{sdp_of(plain)}',
        "pidf": f"Content-Type: application/pidf+xml\r\nContent-ID: <x@y>\r\n\r\n{PIDF}",
        "isup": "Content-Type: application/ISUP;version=nxv3;base=etsi121\r\n"
        f"Content-Disposition: signal;handling=optional\r\n\r\n{ISUP}",
    }
    body = "".join(f"--{boundary}\r\n{parts[part]}\r\n" for part in order) + f"--{boundary}--\r\n"
    if case == "preamble and epilogue":
        body = f"This is for readers.\r\n\r\n{body}And this too.\r\n"
    invite = with_lines(with_body(plain, content_type, body), "Geolocation: <cid:x@y>", "MIME-Version: 1.0")
    headers = await told(trunk, app, invite)
    assert values(headers, "Content-Type") == [content_type]
    assert values(headers, "Geolocation") == ["<cid:x@y>"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/sdp;charset=utf-8",
        'APPLICATION/SDP ; charset="UTF-8"',
        'application/sdp;x="a;b,c"',
        "application/sdp;",
    ],
)
async def test_parameters_of_the_content_type(trunk: Trunk, app: DeveloperApp, content_type: str) -> None:
    plain = write(PLAIN, trunk, app.seat.project)
    headers = await told(trunk, app, with_body(plain, content_type, sdp_of(plain)))
    assert values(headers, "Content-Type") == [content_type]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/sdp", 180),
        ("application/sdp, application/isup, multipart/mixed", 180),
        ("text/plain, application/*;q=0.5", 180),
        ("*/*", 180),
        ("", 180),
        # RFC 4475 section 3.3.15: there is nothing that the 200 could hold.
        ("text/nobodyKnowsThis", 406),
        ("application/sdp;q=0.0", 406),
    ],
)
async def test_an_accept_without_sdp_leaves_nothing_to_answer(
    trunk: Trunk, app: DeveloperApp, accept: str, status: int
) -> None:
    invite = with_lines(write(PLAIN, trunk, app.seat.project), f"Accept: {accept}")
    trunk.send(invite)
    answer = await trunk.expect(f"SIP/2.0 {status}")
    assert bool(app.webhooks or status == 180) == (status == 180)
    call = TrunkCall(trunk, invite, ringing=answer)
    if status == 406:
        assert answer.one("Warning").startswith("399 ")
        trunk.send(call.hop_request("ACK"))
        await asyncio.sleep(0.05)
        assert not app.webhooks
    else:
        await app.incoming()
        trunk.send(call.hop_request("CANCEL"))
        await trunk.expect("SIP/2.0 487")


async def test_two_hundred_headers_keep_their_order(trunk: Trunk, app: DeveloperApp) -> None:
    lines = [f"X-{number % 7}: {number}" for number in range(200)]
    headers = await told(trunk, app, with_lines(write(PLAIN, trunk, app.seat.project), *lines))
    assert [pair for pair in headers if re.fullmatch(r"X-\d", pair[0])] == [
        (f"X-{number % 7}", str(number)) for number in range(200)
    ]
