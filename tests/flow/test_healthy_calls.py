"""
A hundred calls with which nothing is wrong, and near-misses: the verdict blames nobody.

Real calls to a running node. Slow webhooks, failed first attempts, bad requests made good, refused and repeated
transfers, callers who interrupt; and by hand, hold and a lost packet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Webhook
from testbed.invites import PLAIN, bend, sdp_of, write
from testbed.rtp import Rtp
from testbed.trunk import Trunk, TrunkCall, establish

TARGET = "tel:+14155550123"
WAVES, OF_EACH = 5, 3

Talk = Callable[[DeveloperApp, PhoneCall], Awaitable[None]]


async def call_id_of(app: DeveloperApp, sip_call_id: str) -> str:
    found = await app.node.get(app.seat, f"/realtime/calls?sip_call_id={sip_call_id}")
    (call,) = found["data"]
    return str(call["id"])


async def verdict_on(app: DeveloperApp, sip_call_id: str) -> dict[str, Any]:
    call_id = await call_id_of(app, sip_call_id)
    async with asyncio.timeout(15):
        while (await app.node.describe(app.seat, call_id))["state"] != "ended":
            await asyncio.sleep(0.02)
    return await app.node.get(app.seat, f"/realtime/calls/{call_id}/verdict")


async def talk(call: PhoneCall) -> None:
    """Speak until the agent answers: on a busy machine a word may break in two, and the second half interrupts."""
    await call.answered()
    for _ in range(6):
        call.speak(300)
        with contextlib.suppress(AssertionError):
            await call.hears_sound(40, timeout=3)
            return
    raise AssertionError(f"the agent never answered; {call.ladder()}")


async def caller_leaves(app: DeveloperApp, call: PhoneCall) -> None:
    await talk(call)
    await call.hears_silence()
    call.hang_up()


async def caller_interrupts(app: DeveloperApp, call: PhoneCall) -> None:
    await talk(call)
    call.hang_up()


async def app_leaves(app: DeveloperApp, call: PhoneCall) -> None:
    await talk(call)
    await app.client.realtime.calls.hangup(await call_id_of(app, call.leg.call_id))
    await call.ended()


async def transfers_twice(app: DeveloperApp, call: PhoneCall) -> None:
    await talk(call)
    call_id = await call_id_of(app, call.leg.call_id)
    call.on_refer = (603, ())
    with pytest.raises(openai.APIStatusError):
        await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
    call.on_refer = (202, (100, 180, 200))
    await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
    await call.ended()


async def transfers(app: DeveloperApp, call: PhoneCall) -> None:
    await talk(call)
    await app.client.realtime.calls.refer(await call_id_of(app, call.leg.call_id), target_uri=TARGET)
    await call.ended()


class Apps:
    """One app for each kind of call, which accepts by itself in the way of its kind."""

    def __init__(self) -> None:
        self.kinds: list[tuple[str, DeveloperApp, Talk]] = []

    async def open(self, stack: AsyncExitStack, node: Node) -> None:
        for name, accept, what in (
            ("plain", self._accepts, caller_leaves),
            ("interrupted", self._accepts, caller_interrupts),
            ("ended by the app", self._accepts, app_leaves),
            ("slow webhook", self._accepts_late, caller_leaves),
            ("second attempt", self._accepts, caller_leaves),
            ("bad accept made good", self._accepts_twice, caller_leaves),
            ("transferred", self._accepts, transfers),
            ("refused, then transferred", self._accepts, transfers_twice),
        ):
            app = await stack.enter_async_context(DeveloperApp(node))
            app.on_incoming = accept(app)
            self.kinds.append((name, app, what))

    @staticmethod
    def _accepts(app: DeveloperApp) -> Callable[[Webhook], Awaitable[None]]:
        async def accept(webhook: Webhook) -> None:
            await app.accept(webhook.call_id)

        return accept

    @staticmethod
    def _accepts_late(app: DeveloperApp) -> Callable[[Webhook], Awaitable[None]]:
        async def accept(webhook: Webhook) -> None:
            await asyncio.sleep(0.9)
            await app.accept(webhook.call_id)

        return accept

    @staticmethod
    def _accepts_twice(app: DeveloperApp) -> Callable[[Webhook], Awaitable[None]]:
        async def accept(webhook: Webhook) -> None:
            with pytest.raises(openai.BadRequestError):
                await app.accept(webhook.call_id, extra_body={"no_such_field": 1})
            await app.accept(webhook.call_id)

        return accept


async def one(name: str, app: DeveloperApp, phone: Phone, what: Talk) -> tuple[str, dict[str, Any]]:
    if name == "second attempt":
        app.status = 500
        asyncio.get_running_loop().call_later(0.3, setattr, app, "status", 200)
    call = await phone.dial(app.seat.project)
    await what(app, call)
    return name, await verdict_on(app, call.leg.call_id)


@pytest.mark.alone  # a phone that has no time to listen loses packets, and the verdict says so
async def test_a_hundred_calls_without_a_fault(node: Node, phone: Phone) -> None:
    seen: Counter[tuple[str, str, str]] = Counter()
    async with AsyncExitStack() as stack:
        apps = Apps()
        await apps.open(stack, node)
        for _ in range(WAVES):
            wave = [one(name, app, phone, what) for name, app, what in apps.kinds for _ in range(OF_EACH)]
            for name, found in await asyncio.gather(*wave):
                seen[name, found["code"], found["blame"]] += 1
                assert found["blame"] == "nobody", (name, found)
                assert found["also"] == [], (name, found)
    assert sum(seen.values()) >= 100
    ends = {"ended by the app": "app_hung_up", "transferred": "transferred"}
    ends["refused, then transferred"] = "transferred"
    assert {name: code for name, code, _ in seen} == {
        name: ends.get(name, "caller_hung_up") for name, *_ in apps.kinds
    }


@pytest.fixture
async def udp(node: Node) -> AsyncIterator[Trunk]:
    async with Trunk(node.sip["udp"], "udp") as trunk:
        yield trunk


async def offer(call: TrunkCall, line: str) -> None:
    answer = await call.ask(
        "INVITE", f"Contact: <{call.contact}>", body=sdp_of(call.invite) + f"a={line}\r\n"
    )
    assert answer.status == 200
    call.ack()


async def hang_up(call: TrunkCall, app: DeveloperApp) -> dict[str, Any]:
    assert (await call.ask("BYE")).status == 200
    return await verdict_on(app, call.call_id)


async def test_a_lost_packet_and_a_hold_are_no_fault(app: DeveloperApp, udp: Trunk) -> None:
    async with Rtp() as rtp:
        invite = bend(write(PLAIN, udp, app.seat.project, rtp=rtp.port))
        call, _ = await establish(udp, app, invite)
        await rtp.speak(call.media, 400, loud=True)
        rtp.sequence += 1
        await rtp.speak(call.media, 600, loud=False)
        await rtp.hears(0.0)
        await offer(call, "sendonly")
        await asyncio.sleep(3.5)
        await offer(call, "sendrecv")
        await rtp.speak(call.media, 200, loud=False)
        found = await hang_up(call, app)
        assert (found["code"], found["blame"], found["also"]) == ("caller_hung_up", "nobody", [])
