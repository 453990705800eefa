"""
Calls as carriers' edges really place them, in raw bytes on real sockets to a running node.

The INVITEs have the shapes that Twilio, Telnyx and SignalWire send: private Contacts, routes through two
transports, compact headers, long tokens, two clocks of telephone-event.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, SIGNALWIRE, TELNYX, TWILIO, add_media, bend, sdp_of, with_body, write
from testbed.rtp import Rtp
from testbed.trunk import Trunk, TrunkCall, establish, hung_up, post, ring
from testbed.waiting import until

# What each edge records, outermost hop first. `{local}` is where the test itself can be reached.
ROUTES = {
    "twilio": (
        "Record-Route: <sip:{local};transport={transport};r2=on;lr>",
        "Record-Route: <sip:54.172.60.0;r2=on;lr>",
    ),
    "telnyx": (
        "Record-Route:<sip:{local};transport={transport};lr;ftag=pvN1>",
        "Record-Route:<sip:10.255.0.1;transport=tcp;r2=on;lr;ftag=pvN1>,<sip:10.255.0.1;r2=on;lr;ftag=pvN1>",
    ),
    "signalwire": (
        "Record-Route:  <sip:{local};transport={transport};lr;ftag=N4;nat=yes> , <sip:+159.65.244.171:5061;lr=on>",
        'Record-Route: "Edge, two" <sip:152.42.144.114:5061;transport=tls;r2=on;lr;ftag=N4;nat=yes>;x="a,b"',
    ),
}
INVITES = {"twilio": TWILIO, "telnyx": TELNYX, "signalwire": SIGNALWIRE}
ANSWERS = {
    "twilio": ["audio RTP/AVP 0 101"],
    "telnyx": ["audio RTP/AVP 0 101", "text RTP/AVP 98"],
    "signalwire": ["audio RTP/AVP 8 97"],
}

FROM = "<sip:+14155550100@edge.example.net>"


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


# Dialogs and routes.


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("carrier", ["twilio", "telnyx", "signalwire"])
async def test_a_carriers_call_from_invite_to_transfer(
    node: Node, app: DeveloperApp, carrier: str, transport: str
) -> None:
    async with Trunk(node.sip[transport], transport, ca=node.ca) as trunk:
        own = "{}:{}".format(*trunk.local)
        recorded = [line.format(local=own, transport=transport) for line in ROUTES[carrier]]
        invite = write(INVITES[carrier], trunk, app.seat.project, routes="\n".join(recorded), rport=";rport")
        call, call_id = await establish(trunk, app, invite)
        ok = call.ok
        assert ok is not None

        trying = await trunk.expect("SIP/2.0 100")
        assert trying.at < call.ringing.at
        routes = [line.partition(":")[2].strip() for line in recorded]
        for response in (call.ringing, ok):
            assert response is not None
            assert response.all("Record-Route") == routes
            assert response.one("From") == call._line("From", "f")
            assert response.one("To").startswith(call._line("To", "t") + ";tag=")
            vias = [
                line.partition(":")[2].strip()
                for line in invite.split("\r\n")
                if re.match("(?i)v(ia)? *:", line)
            ]
            assert response.all("Via")[1:] == vias[1:]
            assert response.all("Via")[0].startswith(vias[0].removesuffix(";rport"))
            assert f"rport={trunk.local[1]}" in response.all("Via")[0]
        assert call.ringing is not None
        assert ok.to_tag == call.ringing.to_tag
        host, port = node.sip[transport]
        suffix = "" if transport == "udp" else f";transport={transport}"
        assert ok.one("Contact") == f"<sip:{host}:{port}{suffix}>"

        media = re.findall(r"^m=(\w+) (\d+) (.*)\r$", ok.body, re.MULTILINE)
        assert [f"{kind} {rest}" for kind, _, rest in media] == ANSWERS[carrier]
        assert [int(number) == 0 for _, number, _ in media] == [False, True][: len(media)]
        event = ANSWERS[carrier][0].split()[-1]
        assert re.findall(r"^a=rtpmap:(\d+) telephone-event/(\d+)\r$", ok.body, re.MULTILINE) == [
            (event, "8000")
        ]
        assert "a=ptime:20\r\n" in ok.body

        referring = asyncio.create_task(post(app, call_id, "refer", {"target_uri": "tel:+14155550123"}))
        refer = await trunk.expect("REFER ")
        trunk.answer(refer, "202 Accepted")
        assert await referring == 200
        notify = [
            "Event: refer",
            "Subscription-State: terminated;reason=noresource",
            "Content-Type: message/sipfrag;version=2.0",
        ]
        text = call.request("NOTIFY", *notify).replace("Content-Length: 0", "Content-Length: 14")
        trunk.send(text + "SIP/2.0 200 OK")
        bye = await trunk.expect("BYE ")
        trunk.answer(bye, "200 OK")
        for request in (refer, bye):
            assert request.start.split()[1] == call.contact
            elements = [part.strip() for value in routes for part in re.split(r',(?=\s*["<])', value)]
            assert request.all("Route") == elements
            assert request.one("To") == call._line("From", "f")
            assert request.one("From") == ok.one("To")
        assert bye.cseq > refer.cseq
        assert (await app.next("realtime.call.ended")).event.data.reason == "transferred"


async def test_a_private_contact_without_routes_is_reached_where_the_invite_came_from(
    app: DeveloperApp, udp: Trunk
) -> None:
    invite = write(TWILIO, udp, app.seat.project)
    call, call_id = await establish(udp, app, invite)
    bye = await hung_up(call, app, call_id)
    assert bye.start == "BYE sip:+10987654321@172.25.75.240:5060;transport=udp SIP/2.0"
    assert bye.all("Route") == []


async def test_without_rport_responses_go_to_the_port_in_via(
    app: DeveloperApp, udp: Trunk, node: Node
) -> None:
    """RFC 3261 section 18.2.2: the source's address, but the port that Via names."""
    async with Trunk(node.sip["udp"], "udp") as other:
        invite = write(PLAIN, udp, app.seat.project, local=f"192.0.2.7:{other.local[1]}")
        udp.send(invite)
        ringing = await other.expect("SIP/2.0 180")
        assert ";received=127.0.0.1" in ringing.one("Via")
        assert not udp.seen


async def test_an_invite_twice_is_one_call(app: DeveloperApp, udp: Trunk) -> None:
    invite = write(PLAIN, udp, app.seat.project)
    for _ in range(3):
        udp.send(invite)
    call, call_id = await ring(udp, app, invite)
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    call.ack()
    # And a straggler, after the answer.
    udp.send(invite)
    await asyncio.sleep(0.1)
    assert len({m.to_tag for m in udp.seen if m.status > 100}) == 1
    assert [w.type for w in app.webhooks].count("realtime.call.incoming") == 1
    await hung_up(call, app, call_id)


async def test_cancel_while_it_rings(app: DeveloperApp, udp: Trunk) -> None:
    invite = write(PLAIN, udp, app.seat.project)
    call, _ = await ring(udp, app, invite)
    udp.send(call.hop_request("CANCEL"))
    taken = await udp.expect("SIP/2.0 200", where=lambda m: m.method == "CANCEL")
    refused = await udp.expect("SIP/2.0 487")
    assert call.ringing is not None
    assert taken.to_tag == refused.to_tag == call.ringing.to_tag
    udp.send(call.hop_request("ACK"))
    assert (await app.next("realtime.call.ended")).event.data.reason == "cancelled"


async def test_cancel_that_crosses_the_answer_changes_nothing(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 9.2: a CANCEL after the final response has no effect, and is answered 200."""
    invite = write(PLAIN, udp, app.seat.project)
    call, call_id = await establish(udp, app, invite, ack=False)
    udp.send(call.hop_request("CANCEL"))
    await udp.expect("SIP/2.0 200", where=lambda m: m.method == "CANCEL")
    call.ack()
    await asyncio.sleep(0.1)
    assert not [m for m in udp.seen if m.status == 487]
    assert (await app.node.describe(app.seat, call_id))["state"] == "active"
    assert (await call.ask("BYE")).status == 200


async def test_a_lost_ack_is_asked_for_again_and_bye_waits_for_it(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 sections 13.3.1.4 and 15: T1, then doubled; no BYE before the ACK."""
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project), ack=False)
    assert await post(app, call_id, "hangup") == 200
    first = call.ok
    assert first is not None
    second = await udp.expect("SIP/2.0 200", after=first.at)
    assert 0.4 < second.at - first.at < 0.9
    assert (second.headers, second.body) == (first.headers, first.body)
    assert not [m for m in udp.seen if m.start.startswith("BYE")]
    call.ack()
    udp.answer(await udp.expect("BYE "), "200 OK")
    await asyncio.sleep(1.1)
    assert len([m for m in udp.seen if m.status == 200]) == 2


async def test_a_bye_without_the_ack_ends_the_call_and_its_copy_is_answered_alike(
    app: DeveloperApp, udp: Trunk
) -> None:
    call, _ = await establish(udp, app, write(PLAIN, udp, app.seat.project), ack=False)
    bye = call.request("BYE")
    udp.send(bye)
    udp.send(bye)
    assert (await app.next("realtime.call.ended")).event.data.reason == "remote_hangup"
    await until(lambda: len([m for m in udp.seen if m.method == "BYE"]) >= 2)
    answers = [m for m in udp.seen if m.method == "BYE"]
    assert [m.status for m in answers] == [200, 200]


async def test_requests_of_dialogs_that_are_not_here(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    stray = call.request("BYE").replace("tag=f", "tag=other")
    udp.send(stray)
    assert (await udp.expect("SIP/2.0 481")).method == "BYE"
    # The RFC 3261 way out of a CSeq that falls (section 12.2.2), and an OPTIONS inside the dialog.
    udp.send(call.request("INFO", cseq=3))
    assert (await udp.expect("SIP/2.0 500")).method == "INFO"
    assert (await call.ask("OPTIONS")).status == 200
    assert (await call.ask("PRACK")).status in (405, 501)
    await hung_up(call, app, call_id)


@pytest.mark.parametrize(
    "line", ["a=sendonly", "a=inactive", "c=IN IP4 0.0.0.0"], ids=["sendonly", "inactive", "zero"]
)
async def test_hold_and_resume(app: DeveloperApp, udp: Trunk, line: str) -> None:
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite)
        body = invite.partition("\r\n\r\n")[2].replace("o=- 1 1", "o=- 1 2")
        held = body + line + "\r\n" if line[0] == "a" else body.replace("c=IN IP4 127.0.0.1", line)
        answer = await call.ask("INVITE", "Contact: <sip:caller@{}:{}>".format(*udp.local), body=held)
        assert answer.status == 200
        expected = {"a=sendonly": "recvonly", "a=inactive": "inactive"}.get(line, "recvonly")
        assert f"a={expected}\r\n" in answer.body
        call.send("ACK", cseq=call.cseq)
        await asyncio.sleep(0.05)
        since = time.monotonic()
        await asyncio.sleep(0.15)
        assert not [at for at, _, _ in rtp.came if at > since]
        again = await call.ask("INVITE", body=body.replace("o=- 1 2", "o=- 1 3"))
        assert again.status == 200
        assert "a=sendrecv\r\n" in again.body
        call.send("ACK", cseq=call.cseq)
        since = time.monotonic()
        await until(lambda: [at for at, _, _ in rtp.came if at > since])
        await hung_up(call, app, call_id)


# INVITEs that are bent.


def multipart(invite: str) -> str:
    sdp = sdp_of(invite)
    parts = [
        "Content-Type: application/pidf+xml\r\nContent-ID: <x@y>\r\n\r\n<presence/>",
        f"Content-Type: application/sdp;charset=utf-8\r\n\r\n{sdp}",
        "Content-Type: application/isup;version=itu-t92+\r\nContent-Disposition: signal\r\n\r\n\x01\x02",
    ]
    body = "".join(f"--a b'c\r\n{part}\r\n" for part in parts) + "--a b'c--\r\n"
    return with_body(invite, 'multipart/mixed;boundary="a b\'c"', body)


ODD = {
    "no content-length": lambda i: re.sub(r"Content-Length: \d+\r\n", "", i),
    "padding after the body": lambda i: i + "\r\n\r\n\0\0\0\0",
    "multipart": multipart,
    "line feeds in the sdp": lambda i: with_body(i, "application/sdp", sdp_of(i).replace("\r", "")),
    "folded": lambda i: bend(i, (";tag=f", "\r\n\t;tag=f"), ("CSeq: 7 INVITE", "CSeq:\r\n  7\r\n INVITE")),
    "tel uris": lambda i: bend(i, (FROM, "<tel:+14155550100;phone-context=x>")),
    "to ends in a semicolon": lambda i: re.sub(r"(To: <[^>]*>)", r"\1;", i),
    "anonymous": lambda i: bend(i, (FROM, '"Anonymous" <sip:anonymous@anonymous.invalid>')),
    "bare from": lambda i: bend(i, (FROM, "sip:+14155550100@edge.example.net")),
    "latin-1 name": lambda i: bend(i, ("From: <", "From: J\u00fcrgen <")).encode("latin-1"),
    "24 kB": lambda i: bend(i, ("Max-Forwards", f"X-Token: {'y' * 4000}\r\n" * 6 + "Max-Forwards")),
    "no max-forwards": lambda i: bend(i, ("Max-Forwards: 70\r\n", "")),
    "max-forwards 0": lambda i: bend(i, ("Max-Forwards: 70", "Max-Forwards: 0")),
    "names in any case": lambda i: bend(i, ("Via:", "via :"), ("CSeq", "cseq"), ("Contact", "CONTACT")),
    "gcm first": lambda i: with_body(i, "application/sdp", sdp_of(i).replace(
        "m=audio", "m=audio 9 RTP/SAVP 0\r\na=crypto:1 AEAD_AES_128_GCM inline:x\r\nm=audio")),
    "video and fax": lambda i: add_media(i, "m=video 9 RTP/AVPF 99\r\nm=image 9 udptl t38\r\n"),
    "crypto on plain": lambda i: add_media(i, "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwg\r\n"),
    "require with nothing in it": lambda i: bend(i, ("Max-Forwards", "Require: \r\nMax-Forwards")),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
async def test_an_odd_invite_becomes_a_call(app: DeveloperApp, udp: Trunk, case: str) -> None:
    plain = write(PLAIN, udp, app.seat.project)
    odd = ODD[case](plain)
    udp.send(odd)
    call = TrunkCall(udp, plain)
    call.ringing = await udp.expect("SIP/2.0 180")
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    assert ";;" not in call.ok.one("To")
    offered = odd.decode("latin-1") if isinstance(odd, bytes) else odd
    answered = re.findall(r"^m=(\w+) (\d+)", call.ok.body, re.MULTILINE)
    assert [kind for kind, _ in answered] == re.findall(r"^m=(\w+)", offered, re.MULTILINE)
    assert len([port for _, port in answered if int(port)]) == 1
    call.ack()
    bye = await hung_up(call, app, call_id)
    assert bye.one("From") == call.ok.one("To")


REFUSED = {
    "no common codec": (488, lambda i: i.replace("AVP 0 8", "AVP 18 3")),
    "srtp alone": (488, lambda i: i.replace("RTP/AVP", "RTP/SAVP")),
    "body that ends early": (400, lambda i: i[:-40]),
    "two callers": (400, lambda i: bend(i, ("To:", "From: <sip:x@y>;tag=2\r\nTo:"))),
    "unknown extension": (420, lambda i: bend(i, ("Max-Forwards", "Require: teleport\r\nMax-Forwards"))),
    "isup alone": (415, lambda i: with_body(i, "application/isup", "\x01\x02")),
    "nobody": (404, lambda i: i.replace("INVITE sip:proj", "INVITE sip:nobody")),
    "other scheme": (416, lambda i: re.sub("INVITE sip:[^ ]*", "INVITE mailto:a@b", i)),
    "method": (501, lambda i: i.replace("INVITE", "TELEPORT")),
    "version": (505, lambda i: i.replace("SIP/2.0\r\n", "SIP/3.0\r\n", 1)),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_an_invite_that_cannot_be_is_refused_and_rings_nobody(
    app: DeveloperApp, udp: Trunk, case: str
) -> None:
    status, change = REFUSED[case]
    udp.send(change(write(PLAIN, udp, app.seat.project)))
    refused = await udp.expect("SIP/2.0 ", where=lambda m: m.status >= 200)
    assert refused.status == status, refused
    assert not app.webhooks


async def test_the_app_sees_the_headers_as_they_came(app: DeveloperApp, udp: Trunk) -> None:
    invite = write(TELNYX, udp, app.seat.project)
    call, _ = await ring(udp, app, invite)
    lines = invite.partition("\r\n\r\n")[0].split("\r\n")[1:]
    sent = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    got = [(header.name, header.value) for header in app.webhooks[0].event.data.sip_headers]
    full = {"f": "From", "t": "To", "i": "Call-ID", "m": "Contact", "k": "Supported", "c": "Content-Type"}
    full |= {"l": "Content-Length"}
    wanted = [(full.get(name, name), value) for name, value in sent if name.lower() not in ("via", "v")]
    assert [pair for pair in got if pair[0].lower() not in ("via", "v")] == wanted
    udp.send(call.hop_request("CANCEL"))
