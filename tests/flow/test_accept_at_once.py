"""200 calls whose app accepts in the same millisecond as the webhook arrives: no 404, and all are answered."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone, Webhook
from testbed.script import SCRIPT

CALLS = 200
RING_S = 60.0
"Longer than a busy machine needs for all of them."
SPACING_S = 0.01


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, script=SCRIPT, ring_timeout_s=RING_S) as running:
        yield running


async def test_a_call_can_be_accepted_the_moment_its_webhook_arrives(node: Node) -> None:
    accepts: Counter[int] = Counter()
    async with DeveloperApp(node) as app, Phone(node) as phone, _client(app) as client:

        async def accept(webhook: Webhook) -> None:
            url = f"{node.base_url}/realtime/calls/{webhook.call_id}/accept"
            response = await client.post(url, json={"type": "realtime", "model": "gpt-realtime"})
            accepts[response.status_code] += 1

        app.on_incoming = accept
        # The calls' sound goes to one socket that nobody reads: 200 jitter buffers are not what is tested.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            port = sink.getsockname()[1]
            calls = []
            for _ in range(CALLS):
                calls.append(await phone.dial(app.seat.project, media_port=port))
                # All at once, every accept would wait behind 200 webhooks, and none would come early.
                await asyncio.sleep(SPACING_S)
            await asyncio.gather(*(call.answered(RING_S) for call in calls))
            for call in calls:
                call.hang_up()
            await asyncio.gather(*(call.ended(RING_S) for call in calls))

        assert accepts == {200: CALLS}
        incoming = Counter(one.call_id for one in app.webhooks if one.type == "realtime.call.incoming")
        assert len(incoming) == CALLS
        assert set(incoming.values()) == {1}


def _client(app: DeveloperApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        timeout=20,
        headers={"Authorization": f"Bearer {app.seat.api_key}"},
        limits=httpx2.Limits(max_connections=CALLS, max_keepalive_connections=CALLS),
    )
