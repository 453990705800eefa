"""The sound of a call as carriers really send it: raw RTP and RTCP on real sockets to a running node."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, add_media, write
from testbed.rtp import Rtp
from testbed.trunk import Trunk, digits, establish, hung_up, totals
from testbed.waiting import eventually, until

QUICK = {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}}}


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


async def test_sound_and_digits_before_the_ack(app: DeveloperApp, udp: Trunk) -> None:
    """RTP and the ACK race on different paths: neither waits for the other."""
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, ack=False, **QUICK)
        await rtp.speak(call.media, 100, loud=False)
        rtp.event(call.media, "7", 97, (1, 2, 3, -4, -4, -4))
        await rtp.speak(call.media, 300, loud=True)
        quiet = time.monotonic()
        await asyncio.gather(rtp.speak(call.media, 600, loud=False), rtp.hears(quiet))
        assert await digits(app, call_id) == "7"
        call.ack()
        await hung_up(call, app, call_id)


async def test_digits_whose_last_packets_are_lost(app: DeveloperApp, udp: Trunk) -> None:
    """Three presses of one key and one of another, each without its end: four digits, no more."""
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        for digit in "5554":
            rtp.event(call.media, digit, 97, (1, 2, 3))
            await rtp.speak(call.media, 60, loud=False)
        # Only the ends of this one come, and twice as often as they should.
        rtp.event(call.media, "#", 97, (-5, -5, -5, -5, -5, -5))
        assert await eventually(lambda: digits(app, call_id), "5554#") == "5554#"
        await asyncio.sleep(0.1)
        assert await digits(app, call_id) == "5554#"
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("frame_ms", [10, 30, 60])
async def test_packets_of_another_length(app: DeveloperApp, udp: Trunk, frame_ms: int) -> None:
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        await rtp.speak(call.media, 300, loud=True, frame_ms=frame_ms)
        quiet = time.monotonic()
        await asyncio.gather(rtp.speak(call.media, 600, loud=False, frame_ms=frame_ms), rtp.hears(quiet))
        # What we send stays at 20 ms, and no more than one packet each.
        assert {len(data) for _, data, _ in rtp.came} == {172}
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["lost"] == counts["malformed"] == 0
        assert counts["concealed"] <= 5


async def test_garbage_strangers_and_a_new_ssrc_do_not_disturb(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp, Rtp(ssrc=0xBAD) as stranger, Rtp(ssrc=0xBAD) as silent:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        await rtp.speak(call.media, 100, loud=False)
        garbage = [b"", b"\0", b"\x80", b"\x80\0" * 3, bytes(12), b"\xff" * 1400, b"\x80\x00" + bytes(9)]
        garbage += [
            b"\x9f" + rtp.packet(bytes(160))[1:],  # fifteen contributing sources, and an extension
            b"\xa0" + rtp.packet(bytes(160))[1:],  # padding of zero bytes
            b"\xb0" + rtp.packet(b"\xff" * 160)[1:],
            b"\x80\xc8" + bytes(2),
            b"\x80\x6f" + rtp.packet(bytes(160))[2:],  # a payload type that nobody offered
        ]
        for data in garbage:
            rtp.send_raw(data, call.media)
        # A flood from a third socket, twice as fast as the caller.
        flood = asyncio.create_task(stranger.speak(call.media, 1600, loud=True, frame_ms=10))
        stranger.event(call.media, "9", 97, (1, 2, -3, -3, -3))
        await rtp.speak(call.media, 400, loud=False)
        rtp.ssrc, rtp.sequence, rtp.timestamp = 0x5EC0ED, 100, 7
        await rtp.speak(call.media, 400, loud=True)
        quiet = time.monotonic()
        await asyncio.gather(rtp.speak(call.media, 700, loud=False), rtp.hears(quiet))
        await flood
        assert await digits(app, call_id) == ""
        assert not stranger.came
        assert not silent.came
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["ssrc_changes"] == 1
        assert counts["foreign"] >= 100
        assert counts["malformed"] >= 8
        assert counts["remote"] == f"127.0.0.1:{rtp.port}"


async def test_the_peers_real_port_is_not_the_one_in_its_sdp(app: DeveloperApp, udp: Trunk) -> None:
    """Symmetric RTP: the answer goes to where the sound comes from."""
    async with Rtp() as named, Rtp() as real:
        invite = write(PLAIN, udp, app.seat.project, rtp=named.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        # It is on probation for half a second.
        await real.speak(call.media, 900, loud=True)
        quiet = time.monotonic()
        await asyncio.gather(real.speak(call.media, 600, loud=False), real.hears(quiet))
        assert not [at for at, _, _ in named.came if at > quiet]
        await hung_up(call, app, call_id)
        assert (await totals(app, call_id))["remote"] == f"127.0.0.1:{real.port}"


async def test_sender_reports_and_goodbye(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3550 section 6.4: an SR says what was sent and what was heard; SDES with a CNAME follows; BYE at the end."""
    async with Rtp() as rtp, Rtp() as rtcp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        invite = add_media(invite, f"a=rtcp:{rtcp.port}\r\n")
        call, call_id = await establish(udp, app, invite)
        started = time.monotonic()
        speaking = asyncio.create_task(rtp.speak(call.media, 5000, loud=False))
        async with asyncio.timeout(15):
            while not rtcp.came:
                await asyncio.sleep(0.02)
        speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await speaking
        at, report, source = rtcp.came[0]
        assert source == (call.media[0], call.media[1] + 1)
        first, kind, length, ssrc, seconds, fraction, timestamp, packets, octets = struct.unpack_from(
            "!BBHIIIIII", report
        )
        assert (first, kind, length) == (0x81, 200, 12)
        sent = [data for when, data, _ in rtp.came if when <= at]
        assert ssrc == struct.unpack_from("!I", sent[0], 8)[0]
        assert abs(packets - len(sent)) <= 10
        assert octets == packets * 160
        wall = seconds - 2_208_988_800 + fraction / 2**32
        assert wall == pytest.approx(time.time() - (time.monotonic() - at), abs=1.0)
        last = struct.unpack_from("!I", sent[-1], 4)[0]
        assert abs((timestamp - last + 2**31) % 2**32 - 2**31) <= 8000
        heard, lost = struct.unpack_from("!I", report, 28)[0], report[32]
        assert (heard, lost) == (rtp.ssrc, 0)
        assert report[53] == 202
        assert report[60] == 1
        assert at - started > 0.5
        await hung_up(call, app, call_id)
        goodbye = b"\x81\xcb\0\x01" + struct.pack("!I", ssrc)
        await until(lambda: goodbye in rtcp.came[-1][1])
