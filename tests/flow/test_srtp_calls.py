"""
Calls whose sound is SRTP: what trunks offer, what the app is told, and what is heard.

The carrier's SRTP is `testbed.sdes`, written from the RFCs; the node's is libsrtp.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, TWILIO, bend, sdp_of, with_body, write
from testbed.rtp import Rtp
from testbed.script import SCRIPT
from testbed.sdes import LENGTHS, Sdes
from testbed.trunk import Trunk, TrunkCall, establish, hung_up, totals
from testbed.waiting import until

QUICK = {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}}}
CM80 = "AES_CM_128_HMAC_SHA1_80"
CRYPTO = r"^a=crypto:(\d+) (\S+) inline:(\S+?)\r?$"


@pytest.fixture(scope="module")
def strict_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The first five projects require SRTP, the others have it off."""
    folder = tmp_path_factory.mktemp("srtp")
    modes = {number: f'srtp = "{"required" if number < 5 else "off"}"' for number in range(8)}
    with Node(folder, script=SCRIPT, seats=8, seat_lines=modes) as running:
        yield running


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


@pytest.fixture
async def strict(strict_node: Node) -> AsyncIterator[tuple[DeveloperApp, Trunk]]:
    async with DeveloperApp(strict_node) as app, Trunk(strict_node.sip["udp"], "udp") as trunk:
        yield app, trunk


class Secure:
    """A carrier's stream by SRTP: an `Rtp` whose packets are protected on their way out and opened on their way in."""

    def __init__(self, rtp: Rtp, suite: str = CM80) -> None:
        self.rtp = rtp
        self.out = Sdes(suite, os.urandom(sum(LENGTHS[suite])))
        self.back: Sdes | None = None
        self._roc, self._last = 0, rtp.sequence

    def offer(
        self, invite: str, profile: str = "RTP/SAVP", tag: int = 1, before: str = "", tail: str = ""
    ) -> str:
        """Put our key into an INVITE."""
        sdp = sdp_of(invite).replace("RTP/AVP", profile)
        line = re.search(r"m=audio.*\r\n", sdp)
        assert line
        sdp = sdp.replace(line[0], line[0] + before + self.out.crypto(tag, tail))
        return with_body(invite, "application/sdp", sdp)

    def take(self, answer: str, tag: int = 1) -> None:
        """Read the node's key from its answer, which repeats our tag and suite."""
        lines = re.findall(CRYPTO, answer, re.MULTILINE)
        assert [(each[0], each[1]) for each in lines] == [(str(tag), self.out.suite)]
        self.back = Sdes(self.out.suite, base64.b64decode(lines[0][2]))

    async def speak(self, to: tuple[str, int], ms: int, *, loud: bool) -> None:
        payload = bytes([0x10 if loud and at // 8 % 2 else 0x90 if loud else 0xFF for at in range(160)])
        started = time.monotonic()
        for number in range(ms // 20):
            if (delay := started + number * 0.02 - time.monotonic()) > 0:
                await asyncio.sleep(delay)
            self.send(to, payload)

    def send(self, to: tuple[str, int], payload: bytes = b"\xff" * 160) -> bytes:
        if self.rtp.sequence < self._last:
            self._roc += 1
        self._last = self.rtp.sequence
        data = self.out.protect(self.rtp.packet(payload), self._roc)
        self.rtp.send_raw(data, to)
        return data

    def heard(self, since: float = 0.0) -> list[bytes]:
        """Open every packet that came; one that is not authentic is a failure."""
        assert self.back is not None
        return [
            self.back.unprotect(data)[12:]
            for at, data, _ in self.rtp.came
            if at >= since and data[1] & 0x7F < 64
        ]

    async def hears_sound(self, since: float, packets: int = 5, timeout: float = 15.0) -> None:
        async with asyncio.timeout(timeout):
            while sum(payload != b"\xff" * 160 for payload in self.heard(since)) < packets:
                await asyncio.sleep(0.02)


async def told(app: DeveloperApp, trunk: Trunk, invite: str) -> tuple[TrunkCall, str, str]:
    """Ring; return what the webhook says of the media's security."""
    call = TrunkCall(trunk, invite)
    trunk.send(invite)
    call.ringing = await trunk.expect("SIP/2.0 180", where=lambda m: m.one("Call-ID") == call.call_id)
    event = await app.incoming()
    return call, event.call_id, json.loads(event.body)["data"]["sip_media_security"]


@pytest.mark.parametrize("suite", LENGTHS)
async def test_a_call_by_each_suite(app: DeveloperApp, udp: Trunk, suite: str) -> None:
    """Both directions carry sound, over a wrap of the carrier's sequence number, and nothing fails."""
    async with Rtp() as rtp:
        carrier = Secure(rtp, suite)
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        call, call_id, security = await told(app, udp, invite)
        assert security == "srtp"
        await app.accept(call_id, **QUICK)
        call.ok = await udp.expect("SIP/2.0 200", where=lambda m: m.one("Call-ID") == call.call_id)
        call.ack()
        assert "RTP/SAVP" in call.ok.body
        carrier.take(call.ok.body)
        await carrier.speak(call.media, 500, loud=True)
        quiet = time.monotonic()
        await asyncio.gather(carrier.speak(call.media, 700, loud=False), carrier.hears_sound(quiet))
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["srtp"] == suite
        assert counts["unauthentic"] == counts["replayed"] == counts["malformed"] == counts["lost"] == 0
        assert counts["packets_in"] == 60


async def test_twilios_secure_trunking(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        invite = carrier.offer(write(TWILIO, udp, app.seat.project, rtp=rtp.port))
        call, call_id = await establish(udp, app, invite)
        assert call.ok is not None
        carrier.take(call.ok.body)
        await carrier.speak(call.media, 200, loud=False)
        assert carrier.heard()
        # Ringback ends and the answering network begins: a new SSRC, whose numbers have nothing to do with the old.
        rtp.ssrc, rtp.sequence, carrier._last, carrier._roc = 0x77, 100, 100, 0
        await carrier.speak(call.media, 300, loud=False)
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert (counts["unauthentic"], counts["replayed"], counts["ssrc_changes"]) == (0, 0, 1)
        assert counts["packets_in"] == 25


async def test_optional_srtp_on_a_plain_profile(app: DeveloperApp, udp: Trunk) -> None:
    """As FreeSWITCH and Linphone offer it: the answer keeps the profile and has a key."""
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        unknown = "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:AAAA\r\n"
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port), "RTP/AVP", 3, unknown)
        call, call_id, security = await told(app, udp, invite)
        assert security == "srtp"
        await app.accept(call_id)
        call.ok = await udp.expect("SIP/2.0 200", where=lambda m: m.one("Call-ID") == call.call_id)
        call.ack()
        assert "RTP/AVP" in call.ok.body
        carrier.take(call.ok.body, tag=3)
        await carrier.speak(call.media, 200, loud=False)
        assert carrier.heard()
        await hung_up(call, app, call_id)


async def test_two_lines_on_one_port(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        carrier = Secure(rtp, "AEAD_AES_256_GCM")
        invite = write(PLAIN, udp, app.seat.project, rtp=rtp.port)
        plain = "m=audio" + sdp_of(invite).partition("m=audio")[2]
        secure = carrier.offer(invite)
        invite = with_body(secure, "application/sdp", sdp_of(secure) + plain)
        call, call_id = await establish(udp, app, invite)
        assert call.ok is not None
        assert [each.split()[1:3] for each in re.findall(r"^m=.*", call.ok.body, re.MULTILINE)] == [
            [str(call.media[1]), "RTP/SAVP"],
            ["0", "RTP/AVP"],
        ]
        carrier.take(call.ok.body)
        await carrier.speak(call.media, 100, loud=False)
        assert carrier.heard()
        await hung_up(call, app, call_id)


async def test_a_plain_call_is_said_to_be_plain(app: DeveloperApp, udp: Trunk) -> None:
    call, call_id, security = await told(app, udp, write(PLAIN, udp, app.seat.project))
    assert security == "rtp"
    await app.accept(call_id)
    call.ok = await udp.expect("SIP/2.0 200", where=lambda m: m.one("Call-ID") == call.call_id)
    call.ack()
    assert "crypto" not in call.ok.body
    await hung_up(call, app, call_id)


async def test_a_project_that_requires_it_refuses_the_rest(strict: tuple[DeveloperApp, Trunk]) -> None:
    app, trunk = strict
    assert app.seat.project == "proj_0"
    invite = write(PLAIN, trunk, app.seat.project)
    trunk.send(invite)
    refused = await trunk.expect(
        "SIP/2.0 488", where=lambda m: m.one("Call-ID") == TrunkCall(trunk, invite).call_id
    )
    assert "SRTP is required" in refused.one("Reason")
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        unsafe = carrier.offer(write(PLAIN, trunk, app.seat.project), tail=" UNENCRYPTED_SRTP")
        trunk.send(unsafe)
        answer = await trunk.expect(
            "SIP/2.0 488", where=lambda m: m.one("Call-ID") == TrunkCall(trunk, unsafe).call_id
        )
        assert "UNENCRYPTED_SRTP" in answer.one("Reason")
        call, call_id = await establish(
            trunk, app, carrier.offer(write(PLAIN, trunk, app.seat.project, rtp=rtp.port))
        )
        assert call.ok is not None
        carrier.take(call.ok.body)
        await hung_up(call, app, call_id)


async def test_a_project_without_it_refuses_it(strict_node: Node) -> None:
    seat = next(each for each in strict_node.seats[5:] if not each.taken)
    async with Trunk(strict_node.sip["udp"], "udp") as trunk, Rtp() as rtp:
        invite = Secure(rtp).offer(write(PLAIN, trunk, seat.project))
        trunk.send(invite)
        refused = await trunk.expect("SIP/2.0 488")
        assert "SRTP is off" in refused.one("Reason")


def moved(call: TrunkCall, carrier: Secure, key: Sdes) -> str:
    """Return the SDP of a re-INVITE that has this key."""
    carrier.out = key
    return sdp_of(carrier.offer(call.invite.replace("RTP/SAVP", "RTP/AVP").replace("a=crypto", "a=x-was")))


async def test_new_keys_and_old_ones_in_mid_call(app: DeveloperApp, udp: Trunk) -> None:
    """A refresh with the same key goes on counting; a new key is answered with a new one, and both hold at once."""
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        call, call_id = await establish(udp, app, invite)
        assert call.ok is not None
        carrier.take(call.ok.body)
        first = carrier.back
        assert first is not None
        # The carrier's number wraps in here.
        await carrier.speak(call.media, 600, loud=False)
        same = await call.ask("INVITE", f"Contact: <{call.contact}>", body=moved(call, carrier, carrier.out))
        assert same.status == 200
        call.send("ACK", cseq=call.cseq)
        carrier.take(same.body)
        assert carrier.back is not None
        assert carrier.back.key == first.key
        since = time.monotonic()
        await carrier.speak(call.media, 200, loud=False)
        await until(lambda: len(carrier.heard(since)) > 5)
        other = Sdes(CM80, os.urandom(30))
        new = await call.ask("INVITE", f"Contact: <{call.contact}>", body=moved(call, carrier, other))
        call.send("ACK", cseq=call.cseq)
        carrier.take(new.body)
        assert carrier.back.key != first.key
        # Both counters begin anew with the key.
        carrier._roc = 0
        since = time.monotonic() + 0.04
        await carrier.speak(call.media, 200, loud=False)
        await until(lambda: len(carrier.heard(since)) > 5)
        in_the_clear = sdp_of(write(PLAIN, udp, "x", rtp=rtp.port))
        refused = await call.ask("UPDATE", f"Contact: <{call.contact}>", body=in_the_clear)
        assert refused.status == 488
        assert "stays with it" in refused.one("Reason")
        await carrier.speak(call.media, 100, loud=False)
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert (counts["unauthentic"], counts["replayed"], counts["packets_in"]) == (0, 0, 55)


async def test_our_refresh_repeats_the_key_that_stands_and_takes_a_new_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A session timer's re-INVITE offers what we answered: same key, same version. The carrier may renew its own."""
    with Node(tmp_path_factory.mktemp("refresh"), seats=1, sip="min_se_s = 3") as node:
        async with DeveloperApp(node) as app, Trunk(node.sip["udp"], "udp") as trunk, Rtp() as rtp:
            carrier = Secure(rtp)
            timer = "Allow: INVITE, ACK, BYE\r\nSupported: timer\r\nSession-Expires: 6;refresher=uas\r\nMax-Forwards"
            plain = bend(write(PLAIN, trunk, app.seat.project, rtp=rtp.port), ("Max-Forwards", timer))
            call, call_id = await establish(trunk, app, carrier.offer(plain))
            assert call.ok is not None
            carrier.take(call.ok.body)
            await carrier.speak(call.media, 200, loud=False)

            async def refresh(sdp: str) -> None:
                first = await trunk.expect("INVITE ", 10, where=lambda m: m.cseq not in answered)
                answered.add(first.cseq)
                assert call.ok is not None
                assert first.body == call.ok.body
                trunk.answer(
                    first,
                    "200 OK",
                    "Session-Expires: 6;refresher=uac",
                    "Require: timer",
                    f"Contact: <{call.contact}>",
                    "Content-Type: application/sdp",
                    body=sdp,
                )
                await trunk.expect("ACK ", 10, where=lambda m: m.cseq == first.cseq)

            answered: set[int] = set()
            await refresh(sdp_of(carrier.offer(plain)))
            since = time.monotonic()
            await carrier.speak(call.media, 200, loud=False)
            await until(lambda: len(carrier.heard(since)) > 5)
            carrier.out, carrier._roc = Sdes(CM80, os.urandom(30)), 0
            await refresh(sdp_of(carrier.offer(plain)))
            since = time.monotonic()
            await carrier.speak(call.media, 200, loud=False)
            # Ours was not renewed, so its packets can still be opened by the key of the answer.
            await until(lambda: len(carrier.heard(since)) > 5)
            await hung_up(call, app, call_id)
            titles = [entry["title"] for entry in await node.timeline(app.seat, call_id)]
            moves = [title for title in titles if title.startswith("sound now goes to")]
            assert len(moves) == 1
            assert "with new keys" in moves[0]
            counts = await totals(app, call_id)
            assert (counts["unauthentic"], counts["replayed"], counts["packets_in"]) == (0, 0, 30)


def answering(carrier: Secure, offer: str, plain: str) -> str:
    """Answer the node's offer with our key on its line for our suite, in its profile."""
    lines = {suite: (int(tag), key) for tag, suite, key in re.findall(CRYPTO, offer, re.MULTILINE)}
    tag, key = lines[carrier.out.suite]
    carrier.back = Sdes(carrier.out.suite, base64.b64decode(key))
    profile = re.search(r"^m=audio \d+ (\S+)", offer, re.MULTILINE)
    assert profile
    return sdp_of(carrier.offer(plain, profile[1], tag))


@pytest.mark.parametrize(("seat", "profile"), [("strict", "RTP/SAVP"), ("open", "RTP/AVP")])
async def test_an_invite_without_an_offer_gets_ours_with_keys(
    app: DeveloperApp, node: Node, strict: tuple[DeveloperApp, Trunk], udp: Trunk, seat: str, profile: str
) -> None:
    asked, trunk = strict if seat == "strict" else (app, udp)
    async with Rtp() as rtp:
        carrier = Secure(rtp, "AEAD_AES_128_GCM")
        plain = write(PLAIN, trunk, asked.seat.project, rtp=rtp.port)
        late = re.sub(r"Content-Type: .*\r\n", "", with_body(plain, "application/sdp", ""))
        call, call_id, security = await told(asked, trunk, late)
        assert security == ("srtp" if seat == "strict" else "rtp")
        await asked.accept(call_id)
        call.ok = await trunk.expect("SIP/2.0 200", where=lambda m: m.one("Call-ID") == call.call_id)
        assert f" {profile} " in call.ok.body
        assert len(re.findall(CRYPTO, call.ok.body, re.MULTILINE)) == 4
        call.send("ACK", cseq=7, body=answering(carrier, call.ok.body, plain))
        await carrier.speak(call.media, 200, loud=False)
        assert carrier.heard()
        # A re-INVITE without SDP asks for what stands: our key, by the same profile.
        first = carrier.back
        again = await call.ask("INVITE", f"Contact: <{call.contact}>")
        assert f" {profile} " in again.body
        call.send("ACK", cseq=again.cseq, body=answering(carrier, again.body, plain))
        assert first is not None
        assert carrier.back is not None
        assert carrier.back.key == first.key
        since = time.monotonic()
        await carrier.speak(call.media, 200, loud=False)
        assert carrier.heard(since)
        # An answer that gives SRTP up is not taken.
        third = await call.ask("INVITE", f"Contact: <{call.contact}>")
        call.send("ACK", cseq=third.cseq, body=sdp_of(plain))
        since = time.monotonic()
        await carrier.speak(call.media, 200, loud=False)
        assert carrier.heard(since)
        await hung_up(call, asked, call_id)
        counts = await totals(asked, call_id)
        assert (counts["unauthentic"], counts["replayed"]) == (0, 0)
        # The first may overtake the ACK that has its key: they come by different sockets.
        assert counts["packets_in"] in (29, 30)


async def test_what_is_not_authentic_changes_nothing_and_is_said_once(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp, Rtp(ssrc=rtp_ssrc()) as stranger:
        carrier = Secure(rtp)
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        call, call_id = await establish(udp, app, invite)
        assert call.ok is not None
        carrier.take(call.ok.body)
        liar = Secure(stranger)
        # Nobody is known yet: neither a wrong key nor plain RTP makes itself known.
        await liar.speak(call.media, 300, loud=True)
        await stranger.speak(call.media, 300, loud=True)
        assert not stranger.came
        await carrier.speak(call.media, 200, loud=False)
        copy = carrier.send(call.media)
        rtp.send_raw(copy, call.media)
        stranger.send_raw(carrier.send(call.media), call.media)
        # From the right address, but in the clear.
        await rtp.speak(call.media, 100, loud=True)
        await carrier.speak(call.media, 100, loud=False)
        await hung_up(call, app, call_id)
        counts = await totals(app, call_id)
        assert counts["packets_in"] == 17
        assert counts["unauthentic"] == 35
        assert counts["replayed"] == 1
        assert counts["foreign"] == 1
        assert not stranger.came
        timeline = await app.node.timeline(app.seat, call_id)
        said = [entry["title"] for entry in timeline if "authentication" in entry["title"]]
        assert said == ["25 packets failed authentication: wrong key, or no SRTP?"]


def rtp_ssrc() -> int:
    return struct.unpack("!I", os.urandom(4))[0]


async def test_rtcp_is_protected_too(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        control = re.sub(r"(m=audio.*\r\n)", rf"\1a=rtcp:{rtp.port}" + "\r\n", sdp_of(invite))
        call, call_id = await establish(udp, app, with_body(invite, "application/sdp", control))
        assert call.ok is not None
        carrier.take(call.ok.body)
        back = carrier.back
        assert back is not None
        await carrier.speak(call.media, 200, loud=False)
        await hung_up(call, app, call_id)
        opened: list[bytes] = []

        def goodbye() -> bool:
            for _, data, _ in rtp.came:
                if 200 <= data[1] <= 204:
                    opened.append(back.unprotect_rtcp(data))
            rtp.came.clear()
            return any(b"\x00\xcb" in data or data[-8:-7] == b"\x81" for data in opened)

        await until(goodbye)


async def test_the_keys_are_nowhere_to_be_read(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        carrier = Secure(rtp)
        invite = carrier.offer(write(PLAIN, udp, app.seat.project, rtp=rtp.port), tail="|2^31")
        mine = base64.b64encode(carrier.out.key).decode()
        # Odd spellings of a line that is passed over, each with the same key.
        odd = "".join(
            each + "\r\n"
            for each in (
                f"a=crypto:2 X INLINE:{mine}",
                f"a=crypto:3 X inline : {mine}|1:4",
                f"a=crypto:4 {CM80} inline:{mine[:20]} {mine[20:]}",
                f"a=crypto:5 {CM80} inline:AAAA;inline:{mine}|2^20|1:4 KDR=1",
                f"k=base64:{mine}",
            )
        )
        invite = bend(invite, ("a=crypto", odd + "a=crypto"))
        call, call_id = await establish(udp, app, with_body(invite, "application/sdp", sdp_of(invite)))
        assert call.ok is not None
        carrier.take(call.ok.body)
        assert carrier.back is not None
        await hung_up(call, app, call_id)
        theirs = base64.b64encode(carrier.back.key).decode()
        told_to_the_app = b"".join(webhook.body for webhook in app.webhooks).decode()
        timeline = json.dumps(await app.node.timeline(app.seat, call_id))
        for text in (timeline, app.node.log_path.read_text(), told_to_the_app):
            for key in (mine, theirs):
                assert key[:20] not in text
                assert key[20:] not in text
        assert "inline:(redacted)|2^31" in timeline


@pytest.mark.parametrize(
    ("mode", "profile"), [("required", "RTP/SAVP"), ("optional", "RTP/AVP"), ("off", "RTP/AVP")]
)
async def test_the_phone_on_the_command_line(app: DeveloperApp, node: Node, mode: str, profile: str) -> None:
    host, port = node.sip["udp"]
    command = [sys.executable, "-m", "offhook", "call", f"sip:{app.seat.project}@{host}:{port}", "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--srtp", mode, "--hangup-after", "0.2", "--patience", "0.5", "--max-seconds", "15",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        # A Python of its own takes its time to start on a busy machine.
        event = await app.incoming(20)
        assert json.loads(event.body)["data"]["sip_media_security"] == ("rtp" if mode == "off" else "srtp")
        await app.accept(event.call_id)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode()
    events = [json.loads(line) for line in out.splitlines()]
    (media,) = [each for each in events if each["event"] == "media"]
    assert media["srtp"] == (None if mode == "off" else CM80)
    messages = [each["message"] for each in events if each["event"] == "sip"]
    assert f" {profile} " in messages[0]
    assert not re.search(r"inline:(?!\(redacted\))", "".join(messages))
    counts = await totals(app, event.call_id)
    assert counts["unauthentic"] == 0
    assert counts["packets_in"] > 10
