"""The app of the hosted guide runs with one URL changed."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from testbed import Node, Phone, Seat, Strictness
from testbed.protocol import check_order, validate

Frames = queue.Queue[str]


def _load_app() -> ModuleType:
    import importlib.util

    path = Path(__file__).with_name("hosted_guide_app.py")
    spec = importlib.util.spec_from_file_location("hosted_guide_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seat(node: Node) -> Seat:
    return node.seat()


@pytest.fixture
def frames(node: Node, seat: Seat) -> Iterator[Frames]:
    """The frames that the guide's app, served by werkzeug in threads, gets on its WebSocket."""
    got: Frames = queue.Queue()
    app = _load_app().create_app(
        node.base_url, node.base_url.replace("http://", "ws://"), seat.api_key, seat.secret, got.put
    )
    seat.socket.listen()
    server = make_server("127.0.0.1", 0, app, threaded=True, fd=seat.socket.fileno())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield got
    server.shutdown()
    thread.join(5)
    server.server_close()


async def _until(got: Frames, event_type: str) -> list[dict[str, Any]]:
    """Return the events up to the first of this type, each one valid by the SDK's types."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != event_type:
        frame = await asyncio.to_thread(got.get, timeout=30)
        events.append(validate(frame.encode(), Strictness()))
    return events


async def test_the_guides_app_accepts_greets_and_receives_events(
    node: Node, seat: Seat, frames: Frames
) -> None:
    async with Phone(node) as phone:
        call = await phone.dial(seat.project)
        await call.answered()
        events = await _until(frames, "output_audio_buffer.stopped")
        await call.hears_sound(100)

        assert events[0]["type"] == "session.created"
        assert events[0]["session"]["instructions"] == "You are a support agent."
        assert (
            next(event for event in events if event["type"] == "response.done")["response"]["status"]
            == "completed"
        )
        check_order(events)

        call.hang_up()
        await call.ended()


async def test_the_guides_app_refuses_a_webhook_that_was_not_signed_with_the_secret(
    node: Node, seat: Seat, frames: Frames
) -> None:
    body = json.dumps(
        {"object": "event", "id": "evt_1", "type": "realtime.call.incoming", "data": {"call_id": "rtc_x"}}
    )
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}

    answer = await asyncio.to_thread(requests.post, seat.url, body, headers=headers, timeout=30)

    assert answer.status_code == 400
    assert frames.empty()
