"""
A call that rings can be answered: what it will need is held for it before 180, and the rest is sent elsewhere.

Decision 2 of the design: a full or draining node is 503 with Retry-After, a full project and nobody subscribed 480.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall
from testbed.script import SCRIPT


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("small")
    with Node(
        folder,
        script=SCRIPT,
        seats=4,
        unsubscribed_seats=1,
        engine='kind = "scripted"\nmax_sessions = 2',
        seat_lines={1: "max_calls = 1"},
    ) as running:
        yield running


async def test_the_third_of_two_is_sent_elsewhere_and_those_that_ring_are_answered(
    node: Node, phone: Phone
) -> None:
    async with DeveloperApp(node) as app:
        first, second = await phone.dial(app.seat.project), await phone.dial(app.seat.project)
        ids = {(await app.incoming()).call_id, (await app.incoming()).call_id}
        third = await (await phone.dial(app.seat.project)).refused()
        assert third.status == 503
        assert 1 <= int(str(third.headers.get("Retry-After"))) <= 5
        assert "no engine has a free session" in str(third.headers.get("Reason"))
        assert {webhook.call_id for webhook in app.webhooks if webhook.type.endswith("incoming")} == ids
        for call_id in ids:
            await app.accept(call_id)
        await first.answered()
        await second.answered()
        first.hang_up()
        await app.next("realtime.call.ended")
        # Its place is free again; who gives up while it rings gives its place back too.
        async with asyncio.timeout(30):
            while (again := await _rings(phone, app)) is None:
                await asyncio.sleep(0.02)
        again.hang_up()
        await app.next("realtime.call.ended")
        assert await _rings(phone, app) is not None


async def _rings(phone: Phone, app: DeveloperApp) -> PhoneCall | None:
    """Place a call; `None` when it is turned away."""
    call = await phone.dial(app.seat.project)
    turned_away = asyncio.create_task(call.refused())
    while 180 not in call.provisional and not turned_away.done():
        await asyncio.sleep(0.01)
    if 180 in call.provisional:
        turned_away.cancel()
        return call
    return None


async def test_a_full_project_and_one_that_nobody_listens_to_are_480(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node, node.seats[1]) as app:
        await phone.dial(app.seat.project)
        await app.incoming()
        refused = await (await phone.dial(app.seat.project)).refused()
        assert (refused.status, refused.headers.get("Retry-After")) == (480, None)
    unheard = await (await phone.dial(node.unsubscribed[0].project)).refused()
    assert (unheard.status, unheard.headers.get("Retry-After")) == (480, None)
