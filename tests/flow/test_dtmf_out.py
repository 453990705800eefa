"""`POST /v1/realtime/calls/{id}/dtmf`: keys pressed on the line to the caller, as the far end gets them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, bend, write
from testbed.rtp import Rtp
from testbed.trunk import SipText, Trunk, TrunkCall, establish, hung_up, ring


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


async def press(app: DeveloperApp, call_id: str, body: Any, **headers: str) -> httpx2.Response:
    headers["Authorization"] = f"Bearer {app.seat.api_key}"
    async with httpx2.AsyncClient(timeout=12, headers=headers) as client:
        return await client.post(f"{app.node.base_url}/realtime/calls/{call_id}/dtmf", json=body)


def steps(rtp: Rtp) -> list[int]:
    """Return how many milliseconds the sender's clock went on from each press to the next."""
    starts = [int.from_bytes(data[4:8], "big") for _, data, _ in rtp.came if data[1] == 0x80 | 97]
    return [(late - early & 0xFFFFFFFF) // 8 for early, late in itertools.pairwise(starts)]


async def until(what: Any, timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not what():
            await asyncio.sleep(0.02)


def without_events(invite: str, allow: str = "") -> str:
    lines = "a=rtpmap:96 telephone-event/48000\r\na=rtpmap:97 telephone-event/8000\r\n"
    length = len(invite.partition("\r\n\r\n")[2])
    short = bend(invite, (lines, ""), (" 96 97\r\n", "\r\n"))
    left = len(short.partition("\r\n\r\n")[2])
    return bend(short, (f"Content-Length: {length}", f"{allow}Content-Length: {left}"))


async def test_events_of_the_right_length_before_what_the_agent_says(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 4733 section 2.5: one timestamp for each press, a growing duration, the end three times; speech waits."""
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        await rtp.speak(call.media, 100, loud=False)
        asked = time.monotonic()
        response = await press(app, call_id, {"digits": "1a#", "duration_ms": 80, "gap_ms": 100})
        assert (response.status_code, response.content) == (200, b"")
        await until(lambda: rtp.pressed(97) == "1A#")
        await asyncio.sleep(0.2)
        events = [data for _, data, _ in rtp.came if data[1] & 0x7F == 97]
        for code in (1, 12, 11):
            one = [data for data in events if data[12] == code]
            assert len({data[4:8] for data in one}) == 1
            assert [bool(data[1] & 0x80) for data in one] == [True, False, False, False, False, False]
            durations = [int.from_bytes(data[14:16], "big") for data in one]
            assert durations == [160, 320, 480, 640, 640, 640]
            assert [data[13] >> 7 for data in one] == [0, 0, 0, 1, 1, 1]
        assert next(at for at, data, _ in rtp.came if data[1] == 0x80 | 97) - asked < 1
        assert steps(rtp) == [180, 180]
        # Sequence numbers go on without a gap, whatever the packets carry.
        numbers = [int.from_bytes(data[2:4], "big") for _, data, _ in rtp.came]
        assert {(b - a) & 0xFFFF for a, b in itertools.pairwise(numbers)} == {1}
        entries = [e for e in await app.node.timeline(app.seat, call_id) if "sending digits" in e["title"]]
        assert [(e["title"], e["method"]) for e in entries] == [("sending digits 1A# by rfc4733", "rfc4733")]
        await hung_up(call, app, call_id)


async def test_a_pause_is_a_pause(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        assert (await press(app, call_id, {"digits": "1w2"})).status_code == 200
        # An SDK that got no answer sends it again, and says so: nobody wants the keys pressed twice.
        again = await press(app, call_id, {"digits": "1w2"}, **{"x-stainless-retry-count": "1"})
        assert again.status_code == 200
        await until(lambda: rtp.pressed(97) == "12")
        assert steps(rtp) == [660]
        await asyncio.sleep(1)
        assert rtp.pressed(97) == "12"
        await hung_up(call, app, call_id)


async def test_tones_when_nothing_else_is_taken(app: DeveloperApp, udp: Trunk) -> None:
    """No telephone-event, and no INFO in Allow: the digit is heard, as on any telephone."""
    async with Rtp() as rtp:
        invite = without_events(
            write(PLAIN, udp, app.seat.project, rtp=rtp.port), "Allow: INVITE, ACK, BYE\r\n"
        )
        call, call_id = await establish(udp, app, invite)
        asked = time.monotonic()
        assert (await press(app, call_id, {"digits": "5", "duration_ms": 200})).status_code == 200
        await rtp.hears(asked)
        assert [e["method"] for e in await sendings(app, call_id)] == ["inband"]
        refused = await press(app, call_id, {"digits": "5", "method": "rfc4733"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (409, "method")
        refused = await press(app, call_id, {"digits": "5", "method": "info"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "dtmf_method_unavailable")
        await hung_up(call, app, call_id)


async def sendings(app: DeveloperApp, call_id: str) -> list[dict[str, Any]]:
    entries = await app.node.timeline(app.seat, call_id)
    return [entry for entry in entries if entry["title"].startswith("sending digits")]


async def info_after(call: TrunkCall, after: float) -> SipText:
    return await call.trunk.expect("INFO ", after=after, where=lambda m: m.one("Call-ID") == call.call_id)


async def test_info_when_the_peer_takes_no_events_but_info(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = without_events(
            write(PLAIN, udp, app.seat.project, rtp=rtp.port), "Allow: INVITE, ACK, BYE, INFO\r\n"
        )
        call, call_id = await establish(udp, app, invite)
        asked = asyncio.create_task(press(app, call_id, {"digits": "4w2", "duration_ms": 160}))
        first = await info_after(call, 0.0)
        assert first.one("Content-Type") == "application/dtmf-relay"
        assert first.body == "Signal=4\r\nDuration=160\r\n"
        udp.answer(first, "200 OK")
        second = await info_after(call, first.at)
        assert second.body == "Signal=2\r\nDuration=160\r\n"
        assert second.cseq == first.cseq + 1
        assert second.at - first.at >= 0.5
        udp.answer(second, "415 Unsupported Media Type")
        response = await asked
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (502, "dtmf_rejected")
        assert error["details"]["sip_status"] == 415
        assert error["details"]["sent"] == "4"
        await hung_up(call, app, call_id)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "digits"),
        ({"digits": 12}, "invalid_type", "digits"),
        ({"digits": ""}, "invalid_value", "digits"),
        ({"digits": "12x"}, "invalid_value", "digits"),
        ({"digits": "1\r\n"}, "invalid_value", "digits"),
        ({"digits": "1" * 65}, "invalid_value", "digits"),
        ({"digits": "ww"}, "invalid_value", "digits"),
        ({"digits": "1", "duration_ms": 39}, "invalid_value", "duration_ms"),
        ({"digits": "1", "duration_ms": True}, "invalid_type", "duration_ms"),
        ({"digits": "1", "gap_ms": 5001}, "invalid_value", "gap_ms"),
        ({"digits": "1", "gap_ms": "60"}, "invalid_type", "gap_ms"),
        ({"digits": "1", "method": "smoke"}, "invalid_value", "method"),
        ({"digits": "1", "tone": 1}, "unknown_parameter", "tone"),
    ],
)
async def test_a_bad_body_names_its_field(
    app: DeveloperApp, udp: Trunk, body: Any, code: str, param: str
) -> None:
    call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
    response = await press(app, call_id, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    assert (await press(app, call_id, {"digits": "1"})).json()["error"]["code"] == "call_not_accepted"
    udp.send(call.hop_request("CANCEL"))
    await udp.expect("SIP/2.0 487")


async def test_on_hold_and_after_the_end(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite)
        held = invite.partition("\r\n\r\n")[2].replace("o=- 1 1", "o=- 1 2") + "a=sendonly\r\n"
        assert (await call.ask("INVITE", f"Contact: <{call.contact}>", body=held)).status == 200
        response = await press(app, call_id, {"digits": "1"})
        # `sendonly` from the peer is music to us: nothing may be sent.
        assert (response.status_code, response.json()["error"]["code"]) == (409, "call_on_hold")
        call.send("ACK", cseq=call.cseq)
        await hung_up(call, app, call_id)
        response = await press(app, call_id, {"digits": "1"})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")
