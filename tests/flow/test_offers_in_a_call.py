"""
Offers at any point of a call (RFC 3261 section 14, RFC 3264, RFC 3311), in raw bytes to a running node.

Hold and resume, a new port, a new codec, offers that come late or not at all, and offers that cross.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from offhook.audio import g711, tones
from offhook.audio.frames import Law
from testbed import DeveloperApp, Node, Sideband
from testbed.invites import PLAIN, add_media, bend, sdp_of, with_body, write
from testbed.rtp import Rtp
from testbed.trunk import SipText, Trunk, TrunkCall, establish, hung_up, post, ring
from testbed.waiting import until

QUICK = {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}}}
ZERO = "c=IN IP4 0.0.0.0"


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


class Offers:
    """Writes the carrier's next offers for a call, each with a higher version."""

    def __init__(self, call: TrunkCall) -> None:
        self.call, self.body, self.version = call, sdp_of(call.invite), 1

    def write(self, *changes: tuple[str, str], line: str = "") -> str:
        body = bend(self.body, *changes)
        self.version += 1
        return body.replace("o=- 1 1", f"o=- 1 {self.version}") + (f"{line}\r\n" if line else "")

    async def invite(self, *changes: tuple[str, str], line: str = "", ack: bool = True) -> SipText:
        """Send a re-INVITE with a new offer, acknowledge its 2xx, and return that."""
        answer = await self.call.ask("INVITE", self.contact, body=self.write(*changes, line=line))
        if ack and answer.status == 200:
            self.call.send("ACK", cseq=answer.cseq)
        return answer

    @property
    def contact(self) -> str:
        return "Contact: <sip:caller@{}:{}>".format(*self.call.trunk.local)


def level(packets: list[bytes], law: Law) -> float:
    """Return the mean magnitude of the sound in some RTP packets."""
    sound = g711.decode(b"".join(packet[12:] for packet in packets), law)
    return float(np.abs(sound.astype(np.int32)).mean())


def without_sdp(invite: str) -> str:
    head = re.sub(r"Content-Type: .*\r\n", "", invite.partition("\r\n\r\n")[0] + "\r\n")
    return re.sub(r"Content-Length: \d+", "Content-Length: 0", head) + "\r\n"


async def titles(app: DeveloperApp, call_id: str) -> list[str]:
    return [entry["title"] for entry in await app.node.timeline(app.seat, call_id)]


async def ended(app: DeveloperApp) -> Any:
    return (await app.next("realtime.call.ended")).event.data


# Hold.


HOLDS = {
    "sendonly": ((), "a=sendonly", "recvonly"),
    "inactive": ((), "a=inactive", "inactive"),
    "zero": ((("c=IN IP4 127.0.0.1", ZERO),), "", "recvonly"),
    "zero and sendonly": ((("c=IN IP4 127.0.0.1", ZERO),), "a=sendonly", "recvonly"),
}


@pytest.mark.parametrize("case", HOLDS)
async def test_on_hold_nothing_is_sent_and_what_was_being_said_waits(
    app: DeveloperApp, udp: Trunk, case: str
) -> None:
    """`Hello there.` is 720 ms of sound: some of it before the hold, the rest after it, none lost."""
    changes, line, direction = HOLDS[case]
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        offers = Offers(call)
        async with Sideband(app.client, call_id) as sideband:
            await sideband.connection.response.create()
            await rtp.hears(0.0, 5)
            answer = await offers.invite(*changes, line=line)
            assert answer.status == 200
            assert f"a={direction}\r\n" in answer.body
            await asyncio.sleep(0.05)
            since = time.monotonic()
            await asyncio.sleep(0.7)
            assert not [at for at, _, _ in rtp.came if at > since]
            before = rtp.loud()
            assert 5 <= before < 36
            assert "output_audio_buffer.stopped" not in sideband.types

            back = await offers.invite()
            assert "a=sendrecv\r\n" in back.body
            await sideband.wait_for("output_audio_buffer.stopped")
            await until(lambda: rtp.loud() >= 36)
            await asyncio.sleep(0.1)
            assert rtp.loud() == 36
            assert sideband.types.count("output_audio_buffer.stopped") == 1
            assert "output_audio_buffer.cleared" not in sideband.types
            assert "error" not in sideband.types
        said = await titles(app, call_id)
        assert [t for t in said if t.startswith("the caller ")] == [
            "the caller holds the call",
            "the caller is back",
        ]
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("case", HOLDS)
async def test_a_call_may_begin_on_hold(app: DeveloperApp, udp: Trunk, case: str) -> None:
    changes, line, direction = HOLDS[case]
    async with Rtp() as rtp:
        plain = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        held = bend(sdp_of(plain), *changes) + (f"{line}\r\n" if line else "")
        call, call_id = await establish(udp, app, with_body(plain, "application/sdp", held))
        assert f"a={direction}\r\n" in call.ok.body
        assert (await app.node.describe(app.seat, call_id))["media"]["held"] is True
        offers = Offers(call)
        offers.body = sdp_of(plain)
        assert not rtp.came
        await offers.invite()
        async with asyncio.timeout(30):
            while not rtp.came:
                await asyncio.sleep(0.02)
        said = [title for title in await titles(app, call_id) if title.startswith("the caller ")]
        assert said == ["the caller holds the call", "the caller is back"]
        await hung_up(call, app, call_id)


async def test_music_on_hold_is_not_taken_for_the_caller(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        offers = Offers(call)
        await rtp.speak(call.media, 100, loud=False)
        async with Sideband(app.client, call_id) as sideband:
            await offers.invite(line="a=sendonly")
            await rtp.speak(call.media, 500, loud=True)
            await rtp.speak(call.media, 400, loud=False)
            assert "input_audio_buffer.speech_started" not in sideband.types
            await offers.invite()
            speaking = asyncio.create_task(rtp.speak(call.media, 400, loud=True))
            await sideband.wait_for("input_audio_buffer.speech_started")
            await speaking
            quiet = time.monotonic()
            await asyncio.gather(rtp.speak(call.media, 600, loud=False), rtp.hears(quiet))
        await hung_up(call, app, call_id)


# Another port, another codec.


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_sound_goes_to_the_new_port_and_comes_from_it(
    app: DeveloperApp, udp: Trunk, method: str
) -> None:
    async with Rtp() as first, Rtp(ssrc=0x5EC0ED) as second:
        invite = write(PLAIN, udp, app.seat.project, rtp=first.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        await first.speak(call.media, 100, loud=False)
        offers = Offers(call)
        body = offers.write((f"m=audio {first.port}", f"m=audio {second.port}"))
        answer = await call.ask(method, offers.contact, body=body)
        assert answer.status == 200
        if method == "INVITE":
            call.send("ACK", cseq=answer.cseq)
        await asyncio.sleep(0.05)
        since = time.monotonic()
        await second.speak(call.media, 400, loud=True)
        quiet = time.monotonic()
        await asyncio.gather(second.speak(call.media, 600, loud=False), second.hears(quiet))
        assert not [at for at, _, _ in first.came if at > since]
        await hung_up(call, app, call_id)


async def test_the_codec_changes_and_the_session_hears_and_speaks_on(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, invite, **QUICK)
        offers = Offers(call)
        async with Sideband(app.client, call_id) as sideband:
            await sideband.connection.response.create()
            await sideband.wait_for("output_audio_buffer.stopped")
            spoken = [data for _, data, _ in rtp.came if level([data], "PCMU") > 500]
            assert {data[1] & 0x7F for data in spoken} == {0}

            answer = await offers.invite(("RTP/AVP 0 8 ", "RTP/AVP 8 "))
            assert re.search(r"^m=audio \d+ RTP/AVP 8 97\r$", answer.body, re.MULTILINE)
            assert (await app.node.describe(app.seat, call_id))["codec"] == "PCMA"
            await asyncio.sleep(0.05)
            since = time.monotonic()
            tone = g711.encode(tones.dtmf("5", 300), "PCMA")
            hush = b"\xd5" * 160
            # Half a second of silence first: taken for the other law it would be a noise.
            sound = [hush] * 25 + [tone[at : at + 160] for at in range(0, len(tone), 160)]
            begun = asyncio.create_task(sideband.wait_for("input_audio_buffer.speech_started"))
            for number, frame in enumerate([*sound, *[hush] * 60]):
                rtp.send_raw(rtp.packet(frame, payload_type=8), call.media)
                await asyncio.sleep(0.02)
                if number == 20:
                    assert not begun.done()
            await begun
            await sideband.wait_for("output_audio_buffer.stopped", after=len(sideband.events) - 1)
            answered = [data for at, data, _ in rtp.came if at > since]
            assert {data[1] & 0x7F for data in answered} == {8}
            loud = [data for data in answered if level([data], "PCMA") > 500]
            assert len(loud) == 18  # `I see.`
            assert level(loud, "PCMA") == pytest.approx(level(spoken, "PCMU"), rel=0.1)
            # The session was told nothing of it.
            assert "error" not in sideband.types
        assert "the codec changes from PCMU to PCMA" in await titles(app, call_id)
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_an_offer_that_cannot_be_taken_leaves_the_call_as_it_was(
    app: DeveloperApp, udp: Trunk, method: str
) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        offers = Offers(call)
        answer = await call.ask(method, body=offers.write(("RTP/AVP 0 8 ", "RTP/AVP 18 ")))
        assert answer.status == 488
        assert "no common codec" in answer.one("Reason")
        if method == "INVITE":
            call.send("ACK", cseq=answer.cseq)
        since = time.monotonic()
        await until(lambda: len([at for at, _, _ in rtp.came if at > since]) >= 8)
        assert (await app.node.describe(app.seat, call_id))["state"] == "active"
        assert (await offers.invite()).status == 200
        await hung_up(call, app, call_id)


# No offer in the request: ours in the 200.


async def test_a_reinvite_without_an_offer_gets_ours_and_the_ack_answers_it(
    app: DeveloperApp, udp: Trunk
) -> None:
    async with Rtp() as first, Rtp() as second:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=first.port))
        offers = Offers(call)
        offer = await call.ask("INVITE", offers.contact)
        assert offer.status == 200
        # 97 is telephone-event since the INVITE, and stays that (RFC 3264 section 8.3.2).
        assert re.search(r"^m=audio \d+ RTP/AVP 0 8 97\r$", offer.body, re.MULTILINE)
        assert "a=sendrecv\r\n" in offer.body
        # Between our offer and its answer there is no room for another (RFC 3311 section 5.2).
        assert (await call.ask("UPDATE", body=offers.write())).status == 491
        moved = offers.write((f"m=audio {first.port} RTP/AVP 0 8 96", f"m=audio {second.port} RTP/AVP 8"))
        call.send("ACK", cseq=offer.cseq, body=moved)
        async with asyncio.timeout(15):
            while not second.came:
                await asyncio.sleep(0.01)
        assert second.came[0][1][1] & 0x7F == 8
        since = time.monotonic()
        await asyncio.sleep(0.1)
        assert not [at for at, _, _ in first.came if at > since]
        await hung_up(call, app, call_id)


async def test_the_version_rises_with_what_is_said_and_not_otherwise(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3264 section 8: one version, one text; peers that see a new one may set their media up anew."""

    def version(answer: SipText) -> int:
        (found,) = re.findall(r"^o=- \d+ (\d+) IN IP4", answer.body, re.MULTILINE)
        return int(found)

    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        offers = Offers(call)
        same = await offers.invite()
        assert same.body == call.ok.body
        held = await offers.invite(line="a=sendonly")
        assert version(held) == version(same) + 1
        assert (await offers.invite(line="a=sendonly")).body == held.body
        assert (await call.ask("UPDATE", body=offers.write((" 0 8 96 97", " 18")))).status == 488
        resumed = await offers.invite()
        assert version(resumed) == version(held) + 1
        offered = await call.ask("INVITE", offers.contact)
        call.send("ACK", cseq=offered.cseq)
        assert version(offered) == version(resumed) + 1
        # Its answer never came, but it was said.
        assert version(await offers.invite()) == version(offered) + 1
        await hung_up(call, app, call_id)


async def test_an_offer_of_ours_has_all_the_lines_there_were(app: DeveloperApp, udp: Trunk) -> None:
    """As after an INVITE with video, answered without (RFC 3264 section 8)."""
    video = "m=video 40000 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n"
    async with Rtp() as rtp:
        plain = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await establish(udp, app, add_media(plain, video))
        offer = await call.ask("INVITE", Offers(call).contact)
        assert re.findall(r"^m=(\w+ \d+)", offer.body, re.MULTILINE)[1:] == ["video 0"]
        call.send("ACK", cseq=offer.cseq, body=sdp_of(plain) + video.replace("40000", "0"))
        async with asyncio.timeout(30):
            while not (moves := [each for each in await titles(app, call_id) if "sound now goes" in each]):
                await asyncio.sleep(0.02)
        assert moves == [f"sound now goes to 127.0.0.1:{rtp.port}"]
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("answer", ["", "v=0\r\nnonsense"], ids=["missing", "bad"])
async def test_a_reinvites_ack_without_an_answer_leaves_the_sound_where_it_was(
    app: DeveloperApp, udp: Trunk, answer: str
) -> None:
    async with Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        offer = await call.ask("INVITE")
        call.send("ACK", cseq=offer.cseq, body=answer)
        since = time.monotonic()
        await until(lambda: len([at for at, _, _ in rtp.came if at > since]) >= 8)
        # The dialog is free for the next offer.
        assert (await Offers(call).invite()).status == 200
        await hung_up(call, app, call_id)


@pytest.mark.parametrize("law", ["PCMU", "PCMA"])
async def test_an_invite_without_an_offer_rings_and_the_ack_brings_the_answer(
    app: DeveloperApp, udp: Trunk, law: Law
) -> None:
    number = {"PCMU": 0, "PCMA": 8}[law]
    async with Rtp() as rtp:
        plain = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        call, call_id = await ring(udp, app, without_sdp(plain))
        assert (await app.node.describe(app.seat, call_id))["codec"] is None
        await app.accept(call_id, **QUICK)
        call.ok = await udp.expect("SIP/2.0 200")
        assert re.search(r"^m=audio \d+ RTP/AVP 0 8 101\r$", call.ok.body, re.MULTILINE)
        async with Sideband(app.client, call_id) as sideband:
            # The app may speak before anybody can hear it.
            await sideband.connection.response.create()
            await asyncio.sleep(0.1)
            answer = sdp_of(plain).replace("RTP/AVP 0 8 96 97", f"RTP/AVP {number} 97")
            call.send("ACK", cseq=7, body=answer)
            await sideband.wait_for("output_audio_buffer.stopped")
            await until(lambda: len([data for _, data, _ in rtp.came if level([data], law) > 500]) >= 36)
            await asyncio.sleep(0.05)
            loud = [data for _, data, _ in rtp.came if level([data], law) > 500]
            assert {data[1] & 0x7F for _, data, _ in rtp.came} == {number}
            assert len(loud) == 36
        assert (await app.node.describe(app.seat, call_id))["codec"] == law
        await hung_up(call, app, call_id)


ANSWERS = {
    "missing": lambda plain: "",
    "unreadable": lambda plain: "v=0\r\nnonsense",
    "refused": lambda plain: re.sub(r"m=audio \d+", "m=audio 0", sdp_of(plain)),
    "another codec": lambda plain: sdp_of(plain).replace("RTP/AVP 0 8 96 97", "RTP/AVP 18"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_a_late_offer_whose_ack_has_no_good_answer_ends_with_bye(
    app: DeveloperApp, udp: Trunk, case: str
) -> None:
    plain = write(PLAIN, udp, app.seat.project)
    call, call_id = await ring(udp, app, without_sdp(plain))
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    call.send("ACK", cseq=7, body=ANSWERS[case](plain))
    bye = await udp.expect("BYE ")
    udp.answer(bye, "200 OK")
    assert bye.one("Reason").startswith("SIP;cause=488;text=")
    assert (await ended(app)).reason == "failed"
    termination = (await app.node.describe(app.seat, call_id))["termination"]
    assert termination["result"] == "client_error"
    assert "no common sound: " in termination["cause"]


async def test_a_late_offer_in_a_multipart_body_is_no_offer(app: DeveloperApp, udp: Trunk) -> None:
    plain = write(PLAIN, udp, app.seat.project)
    part = "--b\r\nContent-Type: application/isup\r\nContent-Disposition: signal\r\n\r\nxx\r\n--b--\r\n"
    call, call_id = await ring(udp, app, with_body(plain, "multipart/mixed;boundary=b", part))
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    assert "RTP/AVP 0 8 101" in call.ok.body
    call.send("ACK", cseq=7, body=sdp_of(plain))
    await hung_up(call, app, call_id)


# UPDATE, PRACK, and what crosses.


async def test_update_before_the_answer(app: DeveloperApp, udp: Trunk, node: Node) -> None:
    """RFC 3311 section 5.2: one with an offer has to wait for our answer, one without is good at any time."""
    async with Trunk(node.sip["udp"], "udp") as other:
        call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
        offers = Offers(call)
        early = await call.ask("UPDATE", body=offers.write())
        assert early.status == 500
        assert 0 <= int(early.one("Retry-After")) <= 10
        target = "Contact: <sip:moved@{}:{}>".format(*other.local)
        refreshed = await call.ask("UPDATE", target)
        assert (refreshed.status, refreshed.body) == (200, "")
        await app.accept(call_id)
        call.ok = await udp.expect("SIP/2.0 200", where=lambda m: m.method == "INVITE")
        call.ack()
        asked = asyncio.create_task(post(app, call_id, "hangup"))
        bye = await other.expect("BYE sip:moved@")
        other.answer(bye, "200 OK")
        assert await asked == 200


async def test_update_without_sdp_is_answered_without(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project))
    answer = await call.ask("UPDATE", Offers(call).contact)
    assert (answer.status, answer.body) == (200, "")
    assert answer.one("Contact").startswith("<sip:127.0.0.1:")
    assert "UPDATE" in answer.one("Allow")
    await hung_up(call, app, call_id)


async def test_a_second_offer_before_the_invite_is_answered(app: DeveloperApp, udp: Trunk) -> None:
    """RFC 3261 section 14.2: 500 with a Retry-After of at most ten seconds."""
    call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
    answer = await call.ask("INVITE", body=Offers(call).write())
    assert answer.status == 500
    assert 0 <= int(answer.one("Retry-After")) <= 10
    call.send("ACK", cseq=answer.cseq)
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    call.ack()
    await hung_up(call, app, call_id)


async def test_an_update_during_a_late_offer_is_glare(app: DeveloperApp, udp: Trunk) -> None:
    plain = write(PLAIN, udp, app.seat.project)
    call, call_id = await ring(udp, app, without_sdp(plain))
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    assert (await call.ask("UPDATE", body=sdp_of(plain))).status == 491
    call.send("ACK", cseq=7, body=sdp_of(plain))
    assert (await call.ask("UPDATE", body=sdp_of(plain).replace("o=- 1 1", "o=- 1 2"))).status == 200
    await hung_up(call, app, call_id)


async def test_reliable_provisional_responses_are_refused_when_required(
    app: DeveloperApp, udp: Trunk
) -> None:
    plain = write(PLAIN, udp, app.seat.project)
    udp.send(bend(plain, ("Max-Forwards", "Require: 100rel\r\nMax-Forwards")))
    refused = await udp.expect("SIP/2.0 420")
    assert refused.one("Unsupported") == "100rel"
    # Offered only, they are not used.
    invite = bend(write(PLAIN, udp, app.seat.project), ("Max-Forwards", "Supported: 100rel\r\nMax-Forwards"))
    call, call_id = await ring(udp, app, invite)
    assert call.ringing is not None
    assert not call.ringing.all("Require")
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200")
    call.ack()
    await hung_up(call, app, call_id)
