"""What can become of a call while it rings."""

from __future__ import annotations

import asyncio
import time

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from testbed import DeveloperApp, Node, Phone, Sideband, Webhook


def _anonymous(node: Node, api_key: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=api_key, base_url=node.base_url, max_retries=0, timeout=30)


async def test_nothing_is_answered_before_the_app_accepts(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await call.rings()
    await asyncio.sleep(0.3)
    assert [wire.name for wire in call.wire if wire.direction == "in"] == ["100 INVITE", "180 INVITE"]
    await app.accept(webhook.call_id)
    assert (await call.answered()).status == 200


async def test_accepting_from_inside_the_webhook_handler(app: DeveloperApp, phone: Phone) -> None:
    async def accept(webhook: Webhook) -> None:
        await app.accept(webhook.call_id)

    app.on_incoming = accept
    call = await phone.dial(app.seat.project)
    await call.answered()
    webhook = await app.next("realtime.call.answered")
    assert webhook.call_id == app.webhooks[0].call_id


async def test_reject_codes(app: DeveloperApp, phone: Phone) -> None:
    for status in (300, 403, 486, 603, 699):
        call = await phone.dial(app.seat.project)
        webhook = await app.incoming()
        await app.client.realtime.calls.reject(webhook.call_id, status_code=status)

        assert (await call.refused()).status == status
        ended = await app.next("realtime.call.ended")
        assert (ended.call_id, ended.event.data.reason) == (webhook.call_id, "rejected")
        with pytest.raises(openai.NotFoundError):
            await app.accept(webhook.call_id)


async def test_a_reject_code_that_is_none_changes_nothing(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    headers = {"Authorization": f"Bearer {app.seat.api_key}"}
    async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
        for status in (0, 200, 299, 700, "busy", 486.5, True):
            response = await client.post(
                f"{app.node.base_url}/realtime/calls/{webhook.call_id}/reject", json={"status_code": status}
            )
            assert response.status_code == 400, status
            assert response.json()["error"]["param"] == "status_code"

    await app.accept(webhook.call_id)
    await call.answered()


async def test_reject_without_a_body_declines(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    headers = {"Authorization": f"Bearer {app.seat.api_key}"}
    async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
        response = await client.post(f"{app.node.base_url}/realtime/calls/{webhook.call_id}/reject")
    assert (response.status_code, response.content) == (200, b"")
    assert (await call.refused()).status == 603


async def test_hanging_up_a_call_that_rings(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await app.client.realtime.calls.hangup(webhook.call_id)
    assert (await call.refused()).status == 480


async def test_the_caller_gives_up(node: Node, app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await call.rings()
    call.hang_up()
    assert (await call.refused()).status == 487

    with pytest.raises(openai.NotFoundError) as raised:
        await app.accept(webhook.call_id)
    assert raised.value.code == "call_id_not_found"
    assert (await app.next("realtime.call.ended")).event.data.reason == "cancelled"
    described = await node.describe(app.seat, webhook.call_id)
    assert described["answered_at"] is None
    assert described["session"] is None


async def test_a_bad_accept_leaves_the_phone_ringing(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    with pytest.raises(openai.BadRequestError) as raised:
        await app.accept(
            webhook.call_id, audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}}
        )
    assert raised.value.param == "session.audio.input.turn_detection.threshold"
    await asyncio.sleep(0.2)
    assert not call.received("200 INVITE")

    await app.accept(webhook.call_id)
    await call.answered()


async def test_two_accepts_are_one(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await asyncio.gather(
        app.accept(webhook.call_id, instructions="First."),
        app.accept(webhook.call_id, instructions="Second."),
    )
    await call.answered()
    await app.accept(webhook.call_id, instructions="Third.")

    async with Sideband(app.client, webhook.call_id) as sideband:
        session = (await sideband.wait_for("session.created"))["session"]
        assert session["instructions"] in ("First.", "Second.")
    assert len(call.received("200 INVITE")) == 1


async def test_attaching_before_the_accept_waits_for_it(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()

    async def attach() -> tuple[float, str]:
        async with Sideband(app.client, webhook.call_id) as sideband:
            session = (await sideband.wait_for("session.created"))["session"]
            return time.monotonic(), session["instructions"]

    attaching = asyncio.create_task(attach())
    await asyncio.sleep(0.6)
    assert not attaching.done()
    accepted_at = time.monotonic()
    await app.accept(webhook.call_id, instructions="Patience.")

    attached_at, instructions = await attaching
    assert instructions == "Patience."
    assert attached_at >= accepted_at
    await call.answered()


async def test_only_the_right_key_opens_a_call(node: Node, app: DeveloperApp, phone: Phone) -> None:
    from websockets.exceptions import InvalidStatus

    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    other = node.seat()
    async with _anonymous(node, "sk-wrong") as stranger, _anonymous(node, other.api_key) as neighbour:
        with pytest.raises(openai.AuthenticationError) as wrong:
            await stranger.realtime.calls.accept(webhook.call_id, type="realtime")
        assert wrong.value.code == "invalid_api_key"
        with pytest.raises(openai.NotFoundError) as unknown:
            await neighbour.realtime.calls.accept(webhook.call_id, type="realtime")
        assert unknown.value.code == "call_id_not_found"

        await app.accept(webhook.call_id)
        await call.answered()
        for client, status in ((stranger, 401), (neighbour, 404)):
            with pytest.raises(InvalidStatus) as refused:
                async with client.realtime.connect(call_id=webhook.call_id):
                    pass
            assert refused.value.response.status_code == status
        with pytest.raises(openai.NotFoundError):
            await neighbour.realtime.calls.hangup(webhook.call_id)
    assert call.alive


async def test_an_app_that_comes_up_while_it_rings_still_gets_the_call(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node, listening=False) as app:
        call = await phone.dial(app.seat.project)
        await call.rings()
        await asyncio.sleep(0.7)  # the first attempt and the one after 0.5 s find nobody
        await app.listen()
        webhook = await app.incoming()
        await app.accept(webhook.call_id)
        await call.answered()

        entries = [one for one in await node.timeline(app.seat, webhook.call_id) if one["kind"] == "webhook"]
        attempts = [one for one in entries if "attempt" in one]
        incoming = attempts[: next(index for index, one in enumerate(attempts) if one["status"] == 200) + 1]
        assert len(incoming) >= 2
        assert incoming[0]["status"] is None
        assert incoming[0]["will_retry"] is True


async def test_each_attempt_has_one_id_and_a_fresh_signature(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node) as app:
        app.status = 500
        call = await phone.dial(app.seat.project)
        while len(app.webhooks) < 2:
            await asyncio.sleep(0.02)
        app.status = 200
        webhook = await app.incoming()
        await app.client.realtime.calls.reject(webhook.call_id)
        await call.refused()
        assert len({one.headers["webhook-id"] for one in app.webhooks[:3]}) == 1
        assert len({one.body for one in app.webhooks[:3]}) == 1
        stamps = [int(one.headers["webhook-timestamp"]) for one in app.webhooks[:3]]
        assert stamps == sorted(stamps)
        assert stamps[-1] > stamps[0]


async def test_nobody_accepts(node: Node, app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    response = await call.refused()

    assert response.status == 480
    assert "nobody accepted" in (response.headers.get("Reason") or "")
    assert (await app.next("realtime.call.ended")).event.data.reason == "unanswered"
    described = await node.describe(app.seat, webhook.call_id)
    assert described["termination"]["sip_status"] == 480


async def test_nobody_is_subscribed(node: Node, phone: Phone) -> None:
    seat = node.unsubscribed[0]
    async with DeveloperApp(node, seat) as app:
        call = await phone.dial(seat.project)
        response = await call.refused()

        assert response.status == 480
        assert "subscribed" in (response.headers.get("Reason") or "")
        assert (await app.next("realtime.call.ended")).event.data.reason == "unanswered"
        assert len(app.webhooks) == 1


async def test_a_project_that_does_not_exist(phone: Phone) -> None:
    call = await phone.dial("proj_nobody")
    assert (await call.refused()).status == 404


async def test_a_slow_webhook_does_not_hold_up_the_accept(app: DeveloperApp, phone: Phone) -> None:
    """The handler still runs when the call is already answered and over."""
    release = asyncio.Event()

    async def hold(webhook: Webhook) -> None:
        await release.wait()

    app.on_incoming = hold
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await app.accept(webhook.call_id)
    await call.answered()
    call.hang_up()
    await call.ended()
    release.set()
    assert [one.type for one in app.webhooks].count("realtime.call.incoming") == 1
