"""Transfers, end to end: what the app is told, what the caller's phone sees, and what becomes of the call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband

TARGET = "tel:+14155550123"


@dataclass
class Answered:
    app: DeveloperApp
    call: PhoneCall
    call_id: str

    async def refer(self, target: str = TARGET, **options: Any) -> None:
        await self.app.client.realtime.calls.refer(self.call_id, target_uri=target, **options)

    async def post_refer(self, target: Any = TARGET) -> httpx2.Response:
        """POST as a plain HTTP client does, to see the answer as it stands."""
        headers = {"Authorization": f"Bearer {self.app.seat.api_key}"}
        async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
            return await client.post(
                f"{self.app.node.base_url}/realtime/calls/{self.call_id}/refer", json={"target_uri": target}
            )


@pytest.fixture
async def answered(app: DeveloperApp, phone: Phone) -> Answered:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    return Answered(app, call, call_id)


async def test_a_transfer_that_succeeds(node: Node, answered: Answered) -> None:
    async with Sideband(answered.app.client, answered.call_id, events="call") as sideband:
        await sideband.wait_for("session.created")
        call = answered.call
        await answered.refer()
        answered_at = time.monotonic()

        refer = call.received("REFER")[0]
        assert refer.message.headers.get("Refer-To") == f"<{TARGET}>"
        taken = next(wire for wire in call.wire if wire.name == "202 REFER")
        assert taken.at <= answered_at
        await call.ended()
        final = [wire for wire in call.wire if wire.name == "NOTIFY"][-1]
        bye = call.received("BYE")[0]
        assert b"200 OK" in final.message.body
        assert 0 <= bye.at - final.at < 5

        assert (await sideband.wait_closed())[0] == 1000
        updates = sideband.of_type("call.refer.updated")
        assert [(update["status"], update["sip_status"]) for update in updates] == [
            ("accepted", 202),
            ("progress", 100),
            ("progress", 180),
            ("completed", 200),
        ]
        assert {update["target_uri"] for update in updates} == {TARGET}
        assert sideband.of_type("call.ended")[0]["reason"] == "transferred"

    told = [await answered.app.next("realtime.call.refer.updated") for _ in range(4)]
    assert sorted(webhook.event.data.sip_status for webhook in told) == [100, 180, 200, 202]
    described = await node.describe(answered.app.seat, answered.call_id)
    assert described["refers"][0]["status"] == "completed"
    entries = await node.timeline(answered.app.seat, answered.call_id)
    titles = [entry["title"] for entry in entries]
    for line in ("REFER sip:", "SIP/2.0 202", "NOTIFY sip:", f"transfer 1 to {TARGET}: completed"):
        assert any(title.startswith(line) for title in titles), f"{line} is missing from {titles}"


async def test_http_is_answered_only_after_the_peer_took_the_refer(answered: Answered) -> None:
    answered.call.on_refer = None
    refer = asyncio.create_task(answered.post_refer())
    await _until(lambda: bool(answered.call.refers))
    await asyncio.sleep(0.3)
    assert not refer.done()

    answered.call.leg.respond(answered.call.refers[0], 202)
    response = await refer
    assert (response.status_code, response.content) == (200, b"")


async def test_a_refer_that_the_peer_refuses(answered: Answered) -> None:
    answered.call.on_refer = (403, ())
    async with Sideband(answered.app.client, answered.call_id) as sideband:
        await sideband.wait_for("session.created")
        response = await answered.post_refer()

        error = response.json()["error"]
        assert response.status_code == 502
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["x-request-id"]
        assert error["code"] == "refer_rejected"
        assert error["details"]["sip_status"] == 403
        assert error["details"]["target_uri"] == TARGET
        assert "403" in error["message"]

        assert answered.call.alive
        before = len(sideband.events)
        answered.call.speak()
        await sideband.wait_for("response.done", after=before)

        answered.call.on_refer = (202, (200,))
        assert (await answered.post_refer("tel:+14155550999")).status_code == 200
        assert (await answered.call.ended()).cause == "remote_bye"


async def test_the_sdk_does_not_repeat_a_refused_refer(answered: Answered) -> None:
    answered.call.on_refer = (503, ())
    patient = answered.app.client.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as raised:
        await patient.realtime.calls.refer(answered.call_id, target_uri=TARGET)

    assert raised.value.status_code == 502
    assert len(answered.call.received("REFER")) == 1


async def test_a_target_that_fails_leaves_the_call_up(node: Node, answered: Answered) -> None:
    answered.call.on_refer = (202, (100, 486))
    async with Sideband(answered.app.client, answered.call_id, events="call") as sideband:
        await answered.refer()
        failed = await sideband.wait_for("call.refer.updated", lambda event: event["status"] == "failed")
        assert failed["sip_status"] == 486
        before = len(sideband.events)
        answered.call.speak()
        await sideband.wait_for("response.done", after=before)
        assert answered.call.alive


async def test_a_silent_peer_gets_one_refer_and_the_app_an_error_in_time(answered: Answered) -> None:
    """Two clients ask, as an SDK does whose first request was lost; the phone must not be asked twice (row R19)."""
    answered.call.on_refer = None
    asked_at = time.monotonic()
    first = asyncio.create_task(answered.post_refer())
    await asyncio.sleep(0.5)
    second = asyncio.create_task(answered.post_refer())
    responses = [await first, await second]
    took = time.monotonic() - asked_at
    repeated = await answered.post_refer()

    assert 7.0 < took < 12
    for response in (*responses, repeated):
        assert response.status_code == 504
        assert response.headers["x-should-retry"] == "false"
        assert response.json()["error"]["code"] == "refer_timeout"
    assert {wire.message.cseq.number for wire in answered.call.received("REFER")} == {
        answered.call.received("REFER")[0].message.cseq.number
    }
    assert answered.call.alive
    other = await answered.post_refer("tel:+14155550999")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "refer_pending")


async def test_a_target_that_is_none_is_refused_before_anything_is_sent(answered: Answered) -> None:
    bad: list[Any] = [
        "",
        "  ",
        "mailto:x@example.com",
        "sip:a b@example.com",
        "sip:x>@example.com",
        "tel:",
        7,
        None,
    ]
    for target in bad:
        response = await answered.post_refer(target)
        assert response.status_code == 400, target
        assert response.json()["error"]["param"] == "target_uri"
    assert not answered.call.received("REFER")
    assert answered.call.alive


async def _until(holds: Any) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.01)
