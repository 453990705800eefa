"""
Why a call failed, where it takes a node of its own to fail: full, draining, killed, or with upstreams in trouble.

And faults of the way between carrier and node, made by hand. More in `tests/flow/test_verdicts.py`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from testbed import DeveloperApp, Node, Phone
from testbed.invites import PLAIN, bend, write
from testbed.rtp import Rtp
from testbed.script import SCRIPT
from testbed.trunk import Trunk, establish, ring
from testbed.upstream import Upstream

KEY = "sk-upstream-verdicts-5Qx1"
TARGET = "tel:+14155550123"
INTERVAL_S = 3
FUSSY_SEAT, COVERED_SEAT = range(2)


async def verdict(node: Node, app: DeveloperApp, call_id: str = "") -> dict[str, Any]:
    """Return the verdict on a call that is over; without an id on the project's newest."""
    if not call_id:
        call_id = (await node.get(app.seat, "/realtime/calls?limit=1"))["data"][0]["id"]
    async with asyncio.timeout(20):
        while (await node.describe(app.seat, call_id))["state"] != "ended":
            await asyncio.sleep(0.02)
    return await node.get(app.seat, f"/realtime/calls/{call_id}/verdict")


def codes(found: dict[str, Any]) -> list[str]:
    return [found["code"], *(other["code"] for other in found["also"])]


# Upstreams.


@pytest.fixture(scope="module")
def bound() -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


@pytest.fixture(scope="module")
def relaying(tmp_path_factory: pytest.TempPathFactory, bound: socket.socket) -> Iterator[Node]:
    engine = f"""
        kind = "scripted"
        [upstreams.far]
        url = "ws://127.0.0.1:{bound.getsockname()[1]}/v1/realtime"
        api_key_env = "TEST_KEY_VERDICTS"
        silence_s = 1
        [models]
        "gpt-realtime" = "far"
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY_VERDICTS", KEY)
        lines = {
            FUSSY_SEAT: "fallback = { status = 488 }",
            COVERED_SEAT: 'fallback = { accept = { type = "realtime", model = "of-this-node" } }',
        }
        with Node(tmp_path_factory.mktemp("relaying"), engine=engine, seats=20, seat_lines=lines) as running:
            running.seats[FUSSY_SEAT].taken = running.seats[COVERED_SEAT].taken = True
            yield running


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (401, "upstream_refused", "HTTP 401"),
        (429, "upstream_rate_limited", "HTTP 429"),
        (503, "upstream_error", "HTTP 503"),
        ("silent", "upstream_unreachable", "no answer within 1 s"),
    ],
)
async def test_an_upstream_that_does_not_take_the_call(
    relaying: Node, bound: socket.socket, trouble: Any, code: str, said: str
) -> None:
    async with Upstream(bound, key=KEY) as far, DeveloperApp(relaying) as app, Phone(relaying) as phone:
        far.plan += [trouble] * 3
        call = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        assert (await call.refused()).status == 503
        found = await verdict(relaying, app)
        assert (codes(found), found["blame"]) == ([code], "upstream")
        assert said in found["sentence"]
        assert KEY not in str(found)


async def test_an_upstream_where_nobody_listens(relaying: Node) -> None:
    async with DeveloperApp(relaying) as app, Phone(relaying) as phone:
        call = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        await call.refused()
        assert codes(await verdict(relaying, app)) == ["upstream_unreachable"]


async def test_a_fallback_of_488_says_nothing_of_the_offer(relaying: Node) -> None:
    async with DeveloperApp(relaying, relaying.seats[FUSSY_SEAT]) as app, Phone(relaying) as phone:
        call = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        assert (await call.refused()).status == 488
        found = await verdict(relaying, app)
        assert (codes(found), found["blame"]) == (["upstream_unreachable"], "upstream")


async def test_a_fallback_stands_in_for_an_upstream_that_is_gone(relaying: Node) -> None:
    """The app has accepted; what it asked for cannot be had, and the caller hears a voice all the same."""
    async with DeveloperApp(relaying, relaying.seats[COVERED_SEAT]) as app, Phone(relaying) as phone:
        call = await phone.dial(app.seat.project)
        await app.accept((await app.incoming()).call_id)
        await call.answered()
        await call.hears_sound()
        call.hang_up()
        found = await verdict(relaying, app)
        assert (codes(found), found["blame"]) == (["fallback_stood_in"], "upstream")


@pytest.mark.parametrize("comes_back", [True, False])
async def test_an_upstream_that_is_lost(relaying: Node, bound: socket.socket, comes_back: bool) -> None:
    async with Upstream(bound, key=KEY) as far, DeveloperApp(relaying) as app, Phone(relaying) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        session = await far.opened()
        await call.answered()
        if not comes_back:
            far.plan += [503] * 10
        await session.close(1006)
        if comes_back:
            session = await far.opened()
            await session.wait_for("session.update")  # before it, sound would be of another format
            item_id = await session.begin()
            await session.say(item_id, bytes([0x10, 0x90] * 800))
            await session.finish(item_id, "Here I am.")
            await call.hears_sound(40)
            call.hang_up()
            found = await verdict(relaying, app, call_id)
            assert (codes(found), found["blame"]) == (["caller_hung_up", "upstream_interrupted"], "nobody")
        else:
            await call.ended()
            found = await verdict(relaying, app, call_id)
            assert (found["code"], found["blame"]) == ("upstream_error", "upstream")
            assert "HTTP 503" in found["sentence"]


# The node.


async def test_a_node_that_is_full(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, calls="max_concurrent = 1") as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            first = await phone.dial(app.seat.project)
            await app.incoming()
            assert (await (await phone.dial(app.seat.project)).refused()).status == 503
            found = await verdict(node, app)
            assert (codes(found), found["blame"]) == (["node_full"], "node")
            assert "1 calls" in found["sentence"]
            first.hang_up()


async def test_a_node_that_drains(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, grace_s=20) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project)
            await app.accept((await app.incoming()).call_id)
            await call.answered()
            node.signal(signal.SIGTERM)
            await node.logged("node.draining")
            assert (await (await phone.dial(app.seat.project)).refused()).status == 503
            found = await verdict(node, app)
            assert (codes(found), found["blame"]) == (["node_draining"], "node")
            call.hang_up()
            assert await node.ended(30) == 0


async def test_a_node_that_is_killed(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project)
            call_id = (await app.incoming()).call_id
            await app.accept(call_id)
            await call.answered()
            call.speak(300)
            await call.hears_sound(40)
            await app.next("realtime.call.answered")
            await asyncio.sleep(0.3)  # what the store has by then is what is left
            node.kill()
            await asyncio.to_thread(node.start_again)
            found = await verdict(node, app, call_id)
            assert (found["code"], found["blame"]) == ("node_crashed", "node")


# Between carrier and node.


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        tmp_path_factory.mktemp("short"), script=SCRIPT, seats=20, sip=f"min_se_s = {INTERVAL_S}"
    ) as node:
        yield node


@pytest.fixture
async def udp(short: Node) -> AsyncIterator[Trunk]:
    async with Trunk(short.sip["udp"], "udp") as trunk:
        yield trunk


async def test_a_caller_whose_session_timer_runs_out(short: Node, udp: Trunk) -> None:
    async with DeveloperApp(short) as app, Rtp() as rtp:
        terms = ("Supported: timer", f"Session-Expires: {INTERVAL_S};refresher=uac", f"Min-SE: {INTERVAL_S}")
        timer = "\r\n".join((*terms, "Max-Forwards"))
        invite = bend(write(PLAIN, udp, app.seat.project, rtp=rtp.port), ("Max-Forwards", timer))
        call, call_id = await establish(udp, app, invite)
        await rtp.speak(call.media, 600, loud=False)
        found = await verdict(short, app, call_id)
        assert (found["code"], found["blame"]) == ("session_timer_expired", "trunk")


async def test_a_refer_that_finds_no_way(short: Node) -> None:
    """The connection is gone, and nobody listens at the Contact."""
    async with DeveloperApp(short) as app:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{closed.getsockname()[1]}"
            async with Rtp() as rtp, Trunk(short.sip["tcp"], "tcp") as trunk:
                invite = write(PLAIN, trunk, app.seat.project, rtp=rtp.port, local=where)
                invite = bend(invite, (f"<sip:caller@{where}>", f"<sip:caller@{where};transport=tcp>"))
                call, call_id = await establish(trunk, app, invite)
                await rtp.speak(call.media, 200, loud=True)
            with pytest.raises(openai.APIStatusError) as failed:
                await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
            assert failed.value.code == "refer_unreachable"
            found = await short.get(app.seat, f"/realtime/calls/{call_id}/verdict")
            assert (found["code"], found["blame"]) == ("refer_unreachable", "trunk")
            assert where in found["sentence"]


async def test_a_trunk_that_does_not_allow_refer(short: Node, udp: Trunk) -> None:
    async with DeveloperApp(short) as app, Rtp() as rtp:
        allow = "Allow: INVITE, ACK, BYE, CANCEL\r\nMax-Forwards"
        invite = bend(write(PLAIN, udp, app.seat.project, rtp=rtp.port), ("Max-Forwards", allow))
        call, call_id = await establish(udp, app, invite)
        with pytest.raises(openai.APIStatusError):
            await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
        await rtp.speak(call.media, 200, loud=True)
        assert (await call.ask("BYE")).status == 200
        found = await verdict(short, app, call_id)
        assert "refer_not_supported" in codes(found)


async def test_a_refer_that_nobody_answers(short: Node, udp: Trunk) -> None:
    async with DeveloperApp(short) as app, Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        asked = asyncio.create_task(app.client.realtime.calls.refer(call_id, target_uri=TARGET))
        await udp.expect("REFER ", where=lambda message: message.one("Call-ID") == call.call_id)
        await rtp.speak(call.media, 400, loud=True)
        with pytest.raises(openai.APIStatusError):
            await asked
        found = await short.get(app.seat, f"/realtime/calls/{call_id}/verdict")
        assert codes(found) == ["refer_no_answer"]
        assert (await call.ask("BYE")).status == 200


async def test_sound_that_comes_from_elsewhere(short: Node, udp: Trunk) -> None:
    """Three packets are too few to be believed."""
    async with DeveloperApp(short) as app, Rtp() as named, Rtp() as stranger:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=named.port))
        await stranger.speak(call.media, 60, loud=True)
        await asyncio.sleep(3.5)
        assert (await call.ask("BYE")).status == 200
        found = await verdict(short, app, call_id)
        assert codes(found) == ["audio_from_elsewhere"]
        assert "3 packets from elsewhere" in found["sentence"]


async def test_sound_of_which_a_fifth_is_lost(short: Node, udp: Trunk) -> None:
    async with DeveloperApp(short) as app, Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        for number in range(40):
            await rtp.speak(call.media, 100, loud=number == 2)
            rtp.sequence = rtp.sequence + 1 & 0xFFFF
            rtp.timestamp = rtp.timestamp + 160 & 0xFFFFFFFF
        await rtp.hears(0.0)
        assert (await call.ask("BYE")).status == 200
        found = await verdict(short, app, call_id)
        assert found["code"] == "loss_from_caller"
        assert "% of the caller's sound was lost" in found["sentence"]


async def test_a_hangup_that_finds_no_way(short: Node) -> None:
    """The trunk's connection is gone, and nobody listens at its Contact: who called may hear silence."""
    async with DeveloperApp(short) as app:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{closed.getsockname()[1]}"
            async with Rtp() as rtp, Trunk(short.sip["tcp"], "tcp") as trunk:
                invite = write(PLAIN, trunk, app.seat.project, rtp=rtp.port, local=where)
                invite = bend(invite, (f"<sip:caller@{where}>", f"<sip:caller@{where};transport=tcp>"))
                call, call_id = await establish(trunk, app, invite)
                await rtp.speak(call.media, 200, loud=True)
            await app.client.realtime.calls.hangup(call_id)
            async with asyncio.timeout(20):
                while (found := await verdict(short, app, call_id))["code"] != "bye_not_answered":
                    await asyncio.sleep(0.05)
            assert found["blame"] == "trunk"
            assert where in found["sentence"]


async def test_a_trunk_that_hangs_up_for_a_fault_of_its_own(short: Node, udp: Trunk) -> None:
    async with DeveloperApp(short) as app, Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        await rtp.speak(call.media, 200, loud=True)
        assert (await call.ask("BYE", 'Reason: Q.850;cause=102;text="MEDIA_TIMEOUT"')).status == 200
        found = await verdict(short, app, call_id)
        assert (found["code"], found["blame"]) == ("cut_off_by_trunk", "trunk")
        assert "MEDIA_TIMEOUT" in found["sentence"]


async def test_a_transferred_call_is_not_hung_up_again_at_the_next_start(tmp_path: Path) -> None:
    """Its dialog is kept for a late NOTIFY, though its BYE was answered."""
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project)
            call_id = (await app.incoming()).call_id
            await app.accept(call_id)
            await call.answered()
            call.on_refer = (202, (100, 200))
            await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
            await call.ended()
            assert codes(await verdict(node, app, call_id)) == ["transferred"]
            await asyncio.to_thread(node.__exit__)
            node.__enter__()
            titles = [entry["title"] for entry in await node.timeline(app.seat, call_id)]
            assert [title for title in titles if "BYE" in title and not title.startswith("sent")] == [
                next(title for title in titles if title.startswith("BYE "))
            ]
            assert codes(await verdict(node, app, call_id)) == ["transferred"]


async def test_a_call_that_another_phone_took(short: Node, udp: Trunk) -> None:
    """Though the app was slow: the trunk rang others too, and one of them answered."""
    async with DeveloperApp(short) as app:
        call, call_id = await ring(udp, app, write(PLAIN, udp, app.seat.project))
        reason = 'CANCEL\r\nReason: SIP;cause=200;text="Call completed elsewhere"'
        await asyncio.sleep(2.5)
        udp.send(call.hop_request("CANCEL").replace(" CANCEL", f" {reason}", 1))
        found = await verdict(short, app, call_id)
        assert (codes(found), found["blame"]) == (["answered_elsewhere"], "nobody")


async def test_a_refused_transfer_and_then_a_fault_of_the_trunks(short: Node, udp: Trunk) -> None:
    """Two faults of one call: both are told."""
    async with DeveloperApp(short) as app, Rtp() as rtp:
        call, call_id = await establish(udp, app, write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        asked = asyncio.create_task(app.client.realtime.calls.refer(call_id, target_uri=TARGET))
        refer = await udp.expect("REFER ", where=lambda message: message.one("Call-ID") == call.call_id)
        udp.answer(refer, "403 Forbidden")
        with pytest.raises(openai.APIStatusError):
            await asked
        await rtp.speak(call.media, 200, loud=True)
        assert (await call.ask("BYE", "Reason: Q.850;cause=41")).status == 200
        found = await verdict(short, app, call_id)
        assert sorted(codes(found)) == ["cut_off_by_trunk", "refer_refused"]
