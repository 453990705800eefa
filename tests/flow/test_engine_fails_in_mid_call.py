"""A voice that fails in mid-call: the caller hears a sentence, not silence, and then BYE."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from testbed import DeveloperApp, Node, Phone, Sideband

DIES_AFTER_MS = 1_500


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    script = {"greeting": "Hello. " * 60, "dies_after_ms": DIES_AFTER_MS}
    with Node(tmp_path_factory.mktemp("dying"), script=script, seats=4) as running:
        yield running


async def test_the_caller_is_told_before_the_call_ends(node: Node, phone: Phone, app: DeveloperApp) -> None:
    """What the agent was saying gives way to it."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    async with Sideband(app.client, call_id) as sideband:
        await sideband.connection.response.create()
        await call.hears_sound(200)
        call.speak(4_000)
        ended = await call.ended()
        assert ended.cause == "remote_bye"
        assert "Temporary failure" in str(ended.reason_header)
        assert (await sideband.wait_closed())[0] == 1000
    data = (await app.next("realtime.call.ended")).event.data
    assert data.result == "server_error"
    assert data.reason == "failed"
    timeline = await node.timeline(app.seat, call_id)
    titles = [entry["title"] for entry in timeline]
    assert "the caller hears: sorry, something went wrong; please call again" in titles
    said_ms = next(entry["ms"] for entry in timeline if entry["title"].startswith("the caller hears"))
    bye_ms = next(entry["ms"] for entry in timeline if entry["title"].startswith("BYE "))
    assert 2_000 < bye_ms - said_ms < 6_000
    # And it was heard until then: the last three seconds are not silence.
    assert call.loud_ms(since=time.monotonic() - 4.0) >= 1_000


async def test_a_caller_who_hangs_up_meanwhile_is_let_go(node: Node, phone: Phone, app: DeveloperApp) -> None:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    call.speak(3_000)
    async with asyncio.timeout(15):
        while not any("the caller hears" in e["title"] for e in await node.timeline(app.seat, call_id)):
            await asyncio.sleep(0.05)
    call.hang_up()
    data = (await app.next("realtime.call.ended")).event.data
    assert data.reason == "remote_hangup"
