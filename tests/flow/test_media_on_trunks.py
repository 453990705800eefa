"""Media as trunks have it: packet lengths, pauses, event clocks, INFO, strangers, reports, and silence for good."""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from testbed import DeveloperApp, Node, Sideband
from testbed.invites import PLAIN, TELNYX, add_media, sdp_of, write
from testbed.rtp import Rtp
from testbed.script import SCRIPT
from testbed.trunk import Trunk, TrunkCall, digits, establish, hung_up, totals
from testbed.waiting import PATIENCE_S, eventually, until

QUICK = {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}}}
TIMEOUT_S = 1.5


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose patience with a silent peer is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFHOOK_MEDIA__TIMEOUT_S", str(TIMEOUT_S))
        with Node(tmp_path_factory.mktemp("impatient"), script=SCRIPT, seats=8) as running:
            yield running


async def media_of(app: DeveloperApp, call_id: str) -> dict[str, Any]:
    media: dict[str, Any] = (await app.node.describe(app.seat, call_id))["media"]
    return media


# Packets of other lengths, and none.


@pytest.mark.parametrize(("wanted", "sent_ms"), [(20, 20), (30, 20), (40, 40), (60, 60)])
async def test_ptime_both_ways(app: DeveloperApp, udp: Trunk, wanted: int, sent_ms: int) -> None:
    """`a=ptime` is what the peer would like to get (RFC 3264 section 5.1); its own packets may have any length."""
    async with Rtp() as rtp:
        invite = add_media(
            write(PLAIN, udp, app.seat.project, rtp=rtp.port), f"a=ptime:{wanted}\r\na=maxptime:150\r\n"
        )
        call, call_id = await establish(udp, app, invite, **QUICK)
        assert call.ok is not None
        assert "a=ptime:20\r\n" in call.ok.body
        await rtp.speak(call.media, 300, loud=True, frame_ms=wanted)
        quiet = time.monotonic()
        await rtp.speak(call.media, 900, loud=False, frame_ms=wanted)
        packets = [data for _, data, _ in rtp.came]
        assert {len(data) - 12 for data in packets} == {sent_ms * 8}
        stamps = [struct.unpack_from("!I", data, 4)[0] for data in packets]
        assert {(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(stamps)} == {sent_ms * 8}
        came = [at for at, _, _ in rtp.came if at > quiet]
        assert (came[-1] - came[0]) / (len(came) - 1) == pytest.approx(sent_ms / 1000, rel=0.1)
        assert (await media_of(app, call_id))["ptime_ms"] == sent_ms
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["lost"] == counts["malformed"] == 0
        assert counts["concealed"] <= 5


async def test_maxptime_goes_before_ptime(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = add_media(
            write(PLAIN, udp, app.seat.project, rtp=rtp.port), "a=ptime:60\r\na=maxptime:20\r\n"
        )
        call, call_id = await establish(udp, app, invite)
        await rtp.speak(call.media, 300, loud=False)
        assert {len(data) for _, data, _ in rtp.came} == {172}
        await hung_up(call, app, call_id)


async def test_comfort_noise_and_the_gap_behind_it(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3389: payload type 13, then nothing for 400 ms, then speech, as FreeSWITCH sends it. Nothing is lost."""
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port).replace("0 8 96 97", "0 8 96 13")
        invite = invite.replace("a=rtpmap:97 telephone-event/8000", "a=rtpmap:13 CN/8000             ")
        call, call_id = await establish(udp, app, invite, **QUICK)
        # The first packet of all is one: the caller says nothing yet.
        rtp.send_raw(rtp.packet(b"\x40", payload_type=13), call.media)
        for _ in range(2):
            await rtp.speak(call.media, 300, loud=True)
            rtp.send_raw(rtp.packet(b"\x40", payload_type=13, samples=3200), call.media)
            await asyncio.sleep(0.4)
        heard = [e["title"] for e in await app.node.timeline(app.seat, call_id) if e["kind"] == "heard"]
        assert heard == ["Good morning.", "When are you open?"]
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["lost"] == counts["malformed"] == counts["foreign"] == 0
        assert counts["concealed"] <= 3


# Digits.


async def test_the_answer_has_the_codecs_event_clock_and_both_are_heard(
    app: DeveloperApp, udp: Trunk
) -> None:
    """Telnyx offers telephone-event with 8000 and with 48000: the answer has the one of the codec, 101."""
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(TELNYX, udp, app.seat.project, rtp=rtp.port))
        assert call.ok is not None
        assert re.findall(r"telephone-event/\d+", call.ok.body) == ["telephone-event/8000"]
        assert "m=audio" in call.ok.body
        assert re.search(r"m=audio \d+ RTP/AVP 0 101\r\n", call.ok.body)
        await rtp.speak(call.media, 100, loud=False)
        rtp.event(call.media, "1", 101, (1, 2, 3, -4, -4, -4))
        rtp.event(call.media, "2", 103, (1, 2, 3, -4, -4, -4), frame=960)
        rtp.event(call.media, "2", 103, (1, 2, 3, -4, -4, -4), frame=960)
        assert await eventually(lambda: digits(app, call_id), "122") == "122"
        await asyncio.sleep(0.1)
        assert await digits(app, call_id) == "122"
        await hung_up(call, app, call_id)


async def inform(call: TrunkCall, content_type: str, body: str) -> int:
    """Send an INFO by hand, since its body is no SDP."""
    head = call.request("INFO", f"Content-Type: {content_type}")
    call.trunk.send(head.replace("Content-Length: 0", f"Content-Length: {len(body)}") + body)
    answer = await call.trunk.expect(
        "SIP/2.0 ", where=lambda m: m.cseq == call.cseq and m.method == "INFO" and m.status >= 200
    )
    return answer.status


async def test_digits_by_info(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        async with Sideband(app.client, call_id) as sideband:
            relay = "application/dtmf-relay"
            assert await inform(call, relay, "Signal=5\r\nDuration=160\r\n") == 200
            assert await inform(call, relay, "Signal= *\r\nDuration= 250") == 200
            assert await inform(call, relay, "Duration=100\nsignal=11") == 200
            assert await inform(call, "application/dtmf; charset=utf-8", "d") == 200
            assert await inform(call, relay, "Signal=16\r\n") == 200  # a hook flash is no digit
            assert await inform(call, relay, "Signal=5\r\nDuration=160\r\n") == 200
            assert await inform(call, relay, "Duration=160\r\n") == 400
            assert await inform(call, relay, "Signal=55\r\n") == 400
            assert await inform(call, "application/media_control+xml", "<x/>") == 415
            assert (await call.ask("INFO")).status == 200
            assert (await call.ask("INFO", "Info-Package: nobody")).status == 469
            await until(lambda: len(sideband.of_type("input_audio_buffer.dtmf_event_received")) >= 5)
            pressed = [e["event"] for e in sideband.of_type("input_audio_buffer.dtmf_event_received")]
            assert "".join(pressed) == "5*#D5"
        assert await digits(app, call_id) == "5*#D5"
        await hung_up(call, app, call_id)


async def test_a_press_that_is_told_twice_is_one_press(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        async with Sideband(app.client, call_id) as sideband:
            await rtp.speak(call.media, 60, loud=False)
            for digit in "331":
                rtp.event(call.media, digit, 97, (1, 2, 3, -4, -4, -4))
                await asyncio.sleep(0.02)
                assert (
                    await inform(call, "application/dtmf-relay", f"Signal={digit}\r\nDuration=80\r\n") == 200
                )
            # And the other way round: INFO is the faster one.
            assert await inform(call, "application/dtmf-relay", "Signal=9\r\nDuration=80\r\n") == 200
            rtp.event(call.media, "9", 97, (1, 2, 3, -4, -4, -4))
            await until(lambda: len(sideband.of_type("input_audio_buffer.dtmf_event_received")) >= 4)
            await asyncio.sleep(0.2)
            pressed = [e["event"] for e in sideband.of_type("input_audio_buffer.dtmf_event_received")]
            assert "".join(pressed) == "3319"
        await hung_up(call, app, call_id)


# Strangers.


@pytest.mark.parametrize("late_ms", [0, 300])
async def test_a_third_party_at_twice_the_rate_before_and_after_the_start(
    app: DeveloperApp, udp: Trunk, late_ms: int
) -> None:
    """It is there before the caller's first packet, and goes on: it is neither heard nor sent to."""
    async with Rtp() as rtp, Rtp(ssrc=0xBAD) as third:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        flood = asyncio.create_task(third.speak(call.media, 3000, loud=True, frame_ms=10))
        await asyncio.sleep(late_ms / 1000)
        # 3 s of a third party's noise: it would be a turn of the caller's if it were heard.
        async with Sideband(app.client, call_id) as sideband:
            await rtp.speak(call.media, 1000, loud=False)
            third.event(call.media, "9", 97, (1, 2, -3, -3, -3))
            await rtp.speak(call.media, 500, loud=False)
            assert "input_audio_buffer.speech_started" not in sideband.types
        flood.cancel()
        assert not third.came
        assert len(rtp.came) > 50
        assert await digits(app, call_id) == ""
        assert (await media_of(app, call_id))["remote"] == f"127.0.0.1:{rtp.port}"
        await hung_up(call, app, call_id)
        assert (await totals(app, call_id))["foreign"] >= 100
        said = [e["title"] for e in await app.node.timeline(app.seat, call_id) if e["kind"] == "media"]
        assert any("sends to this call's port; dropped" in title for title in said)
        assert not any(title.startswith("sound comes from") for title in said)


async def test_reports_are_not_drawn_off_by_a_neighbour(app: DeveloperApp, udp: Trunk) -> None:
    """A host may have other tenants: RTCP from another port of it does not move ours."""
    async with Rtp() as rtp, Rtp() as neighbour:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        speaking = asyncio.create_task(rtp.speak(call.media, 4200, loud=False))
        report = struct.pack("!BBHI", 0x80, 201, 1, 0xBAD)
        for _ in range(40):
            neighbour.send_raw(report, (call.media[0], call.media[1] + 1))
            neighbour.send_raw(b"\x81\xc9" + bytes(30), (call.media[0], call.media[1] + 1))
            await asyncio.sleep(0.1)
        await speaking
        assert not neighbour.came
        await hung_up(call, app, call_id)


# Reports.


async def test_reports_on_the_port_of_the_sound(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 5761 section 5.1.1: the answer says `a=rtcp-mux` when the offer does, and reports come by the RTP port."""
    async with Rtp() as rtp:
        invite = add_media(write(PLAIN, udp, app.seat.project, rtp=rtp.port), "a=rtcp-mux\r\n")
        call, call_id = await establish(udp, app, invite)
        assert call.ok is not None
        assert "a=rtcp-mux\r\n" in call.ok.body
        speaking = asyncio.create_task(rtp.speak(call.media, 4200, loud=False))

        def reports() -> list[tuple[float, bytes, tuple[str, int]]]:
            return [each for each in rtp.came if 192 <= each[1][1] <= 223]

        async with asyncio.timeout(15):
            while not reports():
                await asyncio.sleep(0.02)
        _, report, source = reports()[0]
        assert report[1] == 200
        assert source == call.media
        # What the peer says comes by the same port, and gives a round trip and its view of what we send.
        at = time.monotonic()
        seconds, fraction = struct.unpack_from("!II", report, 8)
        ssrc = struct.unpack_from("!I", report, 4)[0]
        middle = (seconds & 0xFFFF) << 16 | fraction >> 16
        delay = int((at - reports()[0][0]) * 65536)
        block = struct.pack("!IIIIII", ssrc, 5, 100, 80, middle, delay)
        rtp.send_raw(struct.pack("!BBHI", 0x81, 201, 7, rtp.ssrc) + block, call.media)
        async with asyncio.timeout(PATIENCE_S):
            while (media := await media_of(app, call_id))["rtt_ms"] is None:
                await asyncio.sleep(0.02)
        assert 0 <= media["rtt_ms"] < 3000
        assert media["outbound"]["lost"] == 5
        assert media["outbound"]["jitter_ms"] == 10.0
        assert 1 <= media["outbound"]["mos"] < 4.4
        speaking.cancel()
        await hung_up(call, app, call_id)


async def test_garbage_reports_are_harmless(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp, Rtp() as rtcp:
        invite = add_media(write(PLAIN, udp, app.seat.project, rtp=rtp.port), f"a=rtcp:{rtcp.port}\r\n")
        call, call_id = await establish(udp, app, invite)
        where = call.media[0], call.media[1] + 1
        for data in (b"", b"\x80", b"\x80\xc8\0\0", b"\x9f\xc8\0\6" + bytes(24), b"\xa0\xc9\0\1\0\0\0\xff"):
            rtcp.send_raw(data, where)
        for size in range(0, 200, 7):
            rtcp.send_raw(b"\x81\xca" + struct.pack("!H", size) + bytes([255]) * size, where)
        await rtp.speak(call.media, 300, loud=True)
        await rtp.speak(call.media, 600, loud=False)
        assert (await media_of(app, call_id))["inbound"]["packets"] == 45
        await hung_up(call, app, call_id)


# How it was.


async def test_loss_shows_in_the_call_and_on_the_sideband(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        async with Sideband(app.client, call_id, events="call") as sideband:
            for _ in range(56):
                await rtp.speak(call.media, 80, loud=False)
                rtp.packet(bytes(160))  # every fifth packet is made and never sent
            update = await sideband.wait_for("call.media.updated", timeout=30)
        assert update["call_id"] == call_id
        inbound = update["media"]["inbound"]
        assert inbound["loss_percent"] == pytest.approx(20, abs=3)
        assert inbound["mos"] < 3
        assert update["media"]["outbound"]["mos"] is None
        await hung_up(call, app, call_id)
        end = await totals(app, call_id)
        assert end["quality"]["inbound"]["lost"] == end["lost"] >= 50
        assert f"MOS {end['quality']['inbound']['mos']} in" in end["title"]
        assert (await media_of(app, call_id)) == end["quality"]


async def test_a_clean_call_is_rated_as_one(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        await rtp.speak(call.media, 500, loud=False)
        await hung_up(call, app, call_id)
        inbound = (await media_of(app, call_id))["inbound"]
        assert (inbound["lost"], inbound["loss_percent"]) == (0, 0)
        assert inbound["mos"] > 4.2


# Silence for good.


@pytest.fixture
async def hasty(impatient: Node) -> AsyncIterator[tuple[DeveloperApp, Trunk]]:
    async with DeveloperApp(impatient) as app, Trunk(impatient.sip["udp"], "udp") as trunk:
        yield app, trunk


async def test_no_more_rtp_ends_the_call_and_says_so(hasty: tuple[DeveloperApp, Trunk]) -> None:
    app, udp = hasty
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        await rtp.speak(call.media, 2 * int(TIMEOUT_S * 1000), loud=False)
        last = time.monotonic()
        bye = await udp.expect("BYE ")
        udp.answer(bye, "200 OK")
        assert TIMEOUT_S - 0.1 <= bye.at - last < TIMEOUT_S + 3
        assert re.fullmatch(r'Q\.850;cause=102;text="no RTP for \d s, after 150 packets"', bye.one("Reason"))
        ended = await app.next("realtime.call.ended")
        assert ended.event.data.reason == "media_timeout"
        shown = await app.node.describe(app.seat, call_id)
        assert shown["termination"]["reason"] == "media_timeout"
        entries = await app.node.timeline(app.seat, call_id)
        entry = next(e for e in entries if e.get("event") == "media_timeout")
        assert entry["packets_in"] == 150
        assert entry["since"] < entry["at"]


async def test_no_rtp_ever(hasty: tuple[DeveloperApp, Trunk]) -> None:
    app, udp = hasty
    call, _ = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    bye = await udp.expect("BYE ")
    udp.answer(bye, "200 OK")
    assert "none since the answer" in bye.one("Reason")
    assert call.ok is not None
    assert bye.at - call.ok.at >= TIMEOUT_S - 0.1


async def test_a_missing_ack_is_not_taken_for_missing_sound(hasty: tuple[DeveloperApp, Trunk]) -> None:
    """The 200 is repeated for 32 s (RFC 3261 section 13.3.1.4); nobody who has not got it can send sound."""
    app, udp = hasty
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project), ack=False)
    await asyncio.sleep(2 * TIMEOUT_S)
    assert (await app.node.describe(app.seat, call_id))["state"] == "answered"
    call.ack()
    acknowledged = time.monotonic()
    bye = await udp.expect("BYE ")
    udp.answer(bye, "200 OK")
    assert bye.at - acknowledged >= TIMEOUT_S - 0.1


@pytest.mark.parametrize("hold", ["a=inactive", "a=sendonly", "c=IN IP4 0.0.0.0"])
async def test_hold_may_be_silent_for_as_long_as_it_lasts(
    hasty: tuple[DeveloperApp, Trunk], hold: str
) -> None:
    app, udp = hasty
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, _ = await establish(udp, app, invite)
        await rtp.speak(call.media, 200, loud=False)
        plain = sdp_of(invite).replace("o=- 1 1", "o=- 1 2")
        held = plain.replace("c=IN IP4 127.0.0.1", hold) if hold.startswith("c=") else f"{plain}{hold}\r\n"
        assert (await call.ask("INVITE", f"Contact: <{call.contact}>", body=held)).status == 200
        call.send("ACK", cseq=call.cseq)
        await asyncio.sleep(2 * TIMEOUT_S)
        assert not [m for m in udp.seen if m.start.startswith("BYE ")]
        again = plain.replace("o=- 1 2", "o=- 1 3")
        assert (await call.ask("INVITE", f"Contact: <{call.contact}>", body=again)).status == 200
        call.send("ACK", cseq=call.cseq)
        resumed = time.monotonic()
        bye = await udp.expect("BYE ")
        udp.answer(bye, "200 OK")
        assert bye.at - resumed >= TIMEOUT_S - 0.1
