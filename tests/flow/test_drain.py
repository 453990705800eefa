"""SIGTERM on a real process: calls finish, new ones go elsewhere, and who stays too long gets a BYE."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx2

from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.phone import PhoneCall
from testbed.script import SCRIPT


async def answered(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    return call, call_id


async def ready(node: Node) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.get(node.base_url.removesuffix("/v1") + "/readyz")


async def test_calls_finish_while_new_ones_are_sent_elsewhere(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, grace_s=15) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await answered(app, phone)
            assert (await ready(node)).status_code == 200
            node.signal(signal.SIGTERM)
            await node.logged("node.draining")

            said = await ready(node)
            assert said.status_code == 503
            assert said.json()["reasons"] == ["the node is draining"]
            refused = await (await phone.dial(app.seat.project)).refused()
            assert refused.status == 503
            assert int(refused.headers.get("Retry-After") or 0) >= 1
            # The call of before is served as ever: its sideband, its sound, its verbs.
            async with Sideband(app.client, call_id) as sideband:
                await sideband.connection.response.create()
                await call.hears_sound(200)
                began = time.monotonic()
                call.hang_up()
                await sideband.wait_closed()
            assert await node.ended(15) == 0
            assert time.monotonic() - began < 12  # and nobody waits for the rest of the time
            assert [w.event.data.call_id for w in app.webhooks if w.type == "realtime.call.incoming"] == [
                call_id
            ]


async def test_who_stays_past_the_deadline_gets_a_bye_with_its_reason(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, grace_s=1.5) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, call_id = await answered(app, phone)
            ringing = await phone.dial(app.seat.project)
            await ringing.rings()
            asked_at = time.monotonic()
            node.signal(signal.SIGTERM)
            await call.ended()
            assert 1.4 <= time.monotonic() - asked_at < 15
            [bye] = call.received("BYE")
            assert (bye.message.headers.get("Reason") or "").startswith("Q.850;cause=41;")
            assert (await ringing.refused()).status == 480
            assert (await app.next("realtime.call.ended")).event.data.call_id
            assert await node.ended(15) == 0
            assert call_id


async def test_a_lost_bye_is_sent_again_before_the_process_ends(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, grace_s=0.2) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, _ = await answered(app, phone)
            # The phone is deaf for a while: the first copies of the BYE get no answer.
            deaf_until = asyncio.get_running_loop().time() + 1.2
            hear = phone.endpoint.admit
            phone.endpoint.admit = lambda flow: (  # type: ignore[method-assign]
                asyncio.get_running_loop().time() > deaf_until and hear(flow)
            )
            node.signal(signal.SIGTERM)
            await call.ended()
            assert await node.ended(15) == 0


async def test_a_second_signal_ends_the_calls_at_once(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, grace_s=60) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call, _ = await answered(app, phone)
            node.signal(signal.SIGTERM)
            await node.logged("node.draining")
            await asyncio.sleep(0.2)
            assert call.alive
            node.signal(signal.SIGTERM)
            await call.ended()
            assert await node.ended(15) == 0
