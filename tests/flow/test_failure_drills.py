"""
Failure drills: the app's endpoint is down, slow, failing, flapping or not who it says; the app is far too slow.

Every call gets a final response that is not 400, a ringing phone is offered to the app as soon as that is back, and
with a `fallback` it is answered and hears a voice. All endpoints are real HTTP servers.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from offhook.certificates import development_certificate
from testbed import DeveloperApp, Node, Phone, Seat, Webhook
from testbed.developer import QuietServer
from testbed.overload import FALLBACK, Burst

RING_S = 6.0
TIMEOUT_S = 1.0
HTTPS = 0
"The seat whose endpoint speaks TLS."


class DrillNode(Node):
    """Gives an endpoint 1 s for an answer instead of ten; that of the first seat is called by HTTPS."""

    def _tables(self, script: Any, ring_timeout_s: float) -> Iterator[str]:
        secure = self.seats[HTTPS].url
        for table in super()._tables(script, ring_timeout_s):
            yield table.replace(secure, secure.replace("http:", "https:"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with DrillNode(
        tmp_path_factory.mktemp("drills"),
        seats=10,
        ring_timeout_s=RING_S,
        calls=f"webhook_timeout_s = {TIMEOUT_S}",
        seat_lines=dict.fromkeys(range(8, 10), FALLBACK),
    ) as running:
        for seat in (running.seats[HTTPS], *running.seats[8:]):
            seat.taken = True
        yield running


async def attempts(node: Node, seat: Seat, call_id: str) -> list[dict[str, Any]]:
    entries = await node.timeline(seat, call_id)
    return [entry for entry in entries if entry["kind"] == "webhook" and entry["type"].endswith("incoming")]


async def the_call(node: Node, seat: Seat) -> dict[str, Any]:
    (listed,) = (await node.get(seat, "/realtime/calls"))["data"]
    found: dict[str, Any] = listed
    return found


async def test_an_endpoint_that_is_down(node: Node, phone: Phone) -> None:
    """480 when the ringing is over, with what was tried; the trunk is not told what the app's server is."""
    seat = node.seat()
    began = time.monotonic()
    refused = await (await phone.dial(seat.project)).refused()
    assert refused.status == 480
    assert time.monotonic() - began >= RING_S - 0.5
    assert "refused" not in str(refused.headers.get("Reason"))
    call = await the_call(node, seat)
    assert "the last webhook attempt failed" in call["termination"]["cause"]
    assert call["termination"]["result"] == "upstream_error"
    tried = await attempts(node, seat, call["id"])
    assert len(tried) >= 4  # at 0, 0.5, 1.5 and 3.5 s
    assert all(attempt["status"] is None and attempt["error"] for attempt in tried)


async def test_one_that_comes_up_while_it_rings(node: Node, phone: Phone) -> None:
    app = DeveloperApp(node, listening=False)
    async with app:
        call = await phone.dial(app.seat.project)
        await call.rings()
        await asyncio.sleep(0.7)
        await app.listen()
        await app.accept((await app.incoming()).call_id)
        await call.answered()


async def test_one_that_is_down_with_a_fallback(node: Node, phone: Phone) -> None:
    seat = node.seats[8]
    call = await phone.dial(seat.project)
    await call.answered()
    await call.hears_sound(200)
    call.hang_up()


async def test_a_slow_one_that_accepts_while_its_webhook_waits(node: Node, phone: Phone) -> None:
    """It is past its time, and asked again, but its accept counts."""
    async with DeveloperApp(node) as app:

        async def dawdle(webhook: Webhook) -> None:
            if len(app.webhooks) == 1:
                await asyncio.sleep(2 * TIMEOUT_S)
                await app.accept(webhook.call_id)
                await asyncio.sleep(TIMEOUT_S)

        app.on_incoming = dawdle
        call = await phone.dial(app.seat.project)
        await call.answered()
        call_id = app.webhooks[0].call_id
        first = (await attempts(node, app.seat, call_id))[0]
        assert "no answer within" in first["error"]
        assert (
            len({webhook.headers["webhook-id"] for webhook in app.webhooks if "incoming" in webhook.type})
            == 1
        )


async def test_one_that_answers_500_and_recovers(node: Node, phone: Phone) -> None:
    async with DeveloperApp(node) as app:
        app.status = 500
        call = await phone.dial(app.seat.project)
        async with asyncio.timeout(RING_S):
            while len(app.webhooks) < 2:
                await asyncio.sleep(0.02)
        app.status = 200
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        statuses = [attempt["status"] for attempt in await attempts(node, app.seat, call_id)]
        assert statuses[:2] == [500, 500]
        assert statuses[-1] == 200


class FlappingApp(DeveloperApp):
    """Fails at the first delivery of each event with 503, and at the second of every other one with 500."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.failed: Counter[bytes] = Counter()
        self._patience: dict[bytes, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        webhook_id = dict(scope["headers"])[b"webhook-id"]
        failures = self._patience.setdefault(webhook_id, 1 + len(self._patience) % 2)
        if self.failed[webhook_id] >= failures:
            await super().__call__(scope, receive, send)
            return
        self.failed[webhook_id] += 1
        status = 503 if self.failed[webhook_id] == 1 else 500
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def test_one_that_flaps(node: Node) -> None:
    """Each of twelve calls is heard of all the same, in time."""
    async with FlappingApp(node) as app, Phone(node) as phone:
        calls = [await phone.dial(app.seat.project, media_port=5004) for _ in range(12)]
        for _ in calls:
            await app.client.realtime.calls.reject((await app.incoming()).call_id, status_code=486)
        answers = await asyncio.gather(*(call.refused() for call in calls))
        assert [answer.status for answer in answers] == [486] * 12
        assert {1, 2} == set(app.failed.values())


async def test_one_with_a_wrong_certificate(node: Node, phone: Phone, tmp_path: Path) -> None:
    """It is told nothing: who it is cannot be known."""
    seat = node.seats[HTTPS]
    heard: list[bytes] = []

    async def hear(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["path"])
        raise AssertionError

    files = development_certificate(tmp_path, ("127.0.0.1",))  # by an authority of its own
    config = uvicorn.Config(
        hear, log_level="critical", lifespan="off", ws="none", ssl_certfile=files.cert, ssl_keyfile=files.key
    )
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve(sockets=[seat.socket]))
    refused = await (await phone.dial(seat.project)).refused()
    assert refused.status == 480
    call = await the_call(node, seat)
    assert "certificate" in call["termination"]["cause"].lower()
    assert not heard
    server.should_exit = True
    await asyncio.wait_for(serving, 15)


async def test_far_more_calls_than_the_app_can_take(node: Node) -> None:
    """A fifth of `tests/interop/overload.py`, which is the drill in full: 60 INVITEs in 0.6 s, 6 s of ringing."""
    burst = Burst(node, node.seat(), calls=60, within_s=0.6, per_s=5, ring_s=RING_S, accepts=False)
    outcome = await burst.run()
    assert set(outcome.statuses) <= {480, 486}
    assert outcome.statuses.total() == 60
    # 30 in an ideal world; each one that it gets to is a call that still rings.
    assert len(outcome.reached) >= 24
    assert outcome.statuses[486] == len(outcome.reached)


async def test_with_a_fallback_all_of_them_hear_a_voice(node: Node) -> None:
    burst = Burst(node, node.seats[9], calls=60, within_s=0.6, per_s=5, ring_s=RING_S, accepts=True)
    outcome = await burst.run()
    assert outcome.statuses == {200: 60}
    assert outcome.heard == 60
    assert len(outcome.reached) >= 20
