"""`call.webhook.attempted`: an app that listens learns how its own webhooks fare."""

from __future__ import annotations

import asyncio

from testbed import DeveloperApp, Phone, Sideband
from testbed.developer import Webhook


async def test_an_attempt_is_told_to_who_asked_for_it(app: DeveloperApp, phone: Phone) -> None:
    """The app accepts inside its handler and listens; then the handler breaks."""
    listens = asyncio.Event()

    async def handle(webhook: Webhook) -> None:
        await app.accept(webhook.call_id)
        await listens.wait()
        app.status = 503

    app.on_incoming = handle
    call = await phone.dial(app.seat.project)
    await call.answered()
    call_id = (await app.incoming()).call_id
    async with (
        Sideband(app.client, call_id, events="call") as asked,
        Sideband(app.client, call_id) as others,
    ):
        listens.set()
        failed = await asked.wait_for("call.webhook.attempted", lambda event: event["status"] == 503)
        call.hang_up()
        await asked.wait_closed()
        await others.wait_closed()
    assert asked.types[-1] == "call.ended"  # whatever became of the webhooks that were still under way
    assert (failed["call_id"], failed["event"]) == (call_id, "realtime.call.incoming")
    assert (failed["attempt"], failed["endpoint"]) == (1, app.seat.url)
    assert failed["error"]
    assert failed["duration_ms"] > 0
    assert isinstance(failed["will_retry"], bool)
    (entry,) = [
        entry
        for entry in await app.node.timeline(app.seat, call_id)
        if entry["kind"] == "webhook" and entry.get("type") == "realtime.call.incoming"
    ]
    assert {name: entry[name] for name in ("attempt", "duration_ms", "will_retry")} == {
        name: failed[name] for name in ("attempt", "duration_ms", "will_retry")
    }
    assert not [event for event in others.events if event["type"].startswith("call.")]
