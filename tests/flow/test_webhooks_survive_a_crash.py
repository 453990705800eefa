"""A node that is killed again and again under a load of calls: each event that it stored is delivered, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from testbed import Node
from testbed.invites import PLAIN, write
from testbed.node import Seat
from testbed.script import SCRIPT
from testbed.trunk import Trunk

KILLS = 6
SEED = 20_261_121
SETTLE_S = 60.0


class Receiver:
    """An app that writes down what comes. It fails, is slow and tears connections, one time in three."""

    def __init__(self, chance: random.Random) -> None:
        self.bodies: dict[str, bytes] = {}
        self.came: Counter[str] = Counter()
        self.delivered: set[str] = set()
        self.wrong: list[str] = []
        self.well = False
        self._chance = chance
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, seat: Seat) -> asyncio.Server:
        self._client = OpenAI(api_key="sk-test", webhook_secret=seat.secret)
        return await asyncio.start_server(self._serve, sock=seat.socket)

    def close(self) -> None:
        self._client.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self._take(headers, body)
                fate = 1.0 if self.well else self._chance.random()
                if fate < 0.1:
                    break
                if fate < 0.2:
                    await asyncio.sleep(0.3)
                status = 500 if fate < 0.33 else 200
                if status == 200:
                    self.delivered.add(headers["webhook-id"])
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    def _take(self, headers: dict[str, str], body: bytes) -> None:
        webhook_id = headers["webhook-id"]
        event = self._client.webhooks.unwrap(body, headers)  # signed, and within five minutes of now
        if event.id != webhook_id or self.bodies.setdefault(webhook_id, body) != body:
            self.wrong.append(webhook_id)
        self.came[webhook_id] += 1


def kept(node: Node, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(node.data_dir / "offhook.db", timeout=10)) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path, script=SCRIPT, ring_timeout_s=0.4, calls="max_unanswered = 400")
    yield one
    for seat in one.seats:
        seat.socket.close()


async def ring(node: Node, seat: Seat, chance: random.Random, until: float) -> None:
    """Send INVITEs until then; nobody takes the calls, so each ends soon, and that is an event too."""
    async with Trunk(node.sip["udp"], "udp") as trunk:
        while time.monotonic() < until:
            trunk.send(write(PLAIN, trunk, seat.project))
            await asyncio.sleep(chance.uniform(0.005, 0.04))


async def test_every_stored_event_is_delivered_and_none_is_invented(node: Node) -> None:
    chance = random.Random(SEED)
    seat = node.seats[0]
    receiver = Receiver(chance)
    server = await receiver.start(seat)
    for _ in range(KILLS):
        await asyncio.to_thread(node.__enter__)
        await ring(node, seat, chance, time.monotonic() + chance.uniform(0.2, 1.5))
        await asyncio.to_thread(node.kill)
    receiver.well = True
    await asyncio.to_thread(node.__enter__)
    try:
        deadline = time.monotonic() + SETTLE_S
        waiting = -1
        while waiting and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            ((waiting,),) = await asyncio.to_thread(
                kept, node, "SELECT count(*) FROM deliveries WHERE state = 'waiting'"
            )
        states = Counter(dict(kept(node, "SELECT state, count(*) FROM deliveries GROUP BY state")))
        events = dict(kept(node, "SELECT id, body FROM events"))
        told = {id_ for (id_,) in kept(node, "SELECT event_id FROM deliveries WHERE state = 'delivered'")}
        late = {id_ for (id_,) in kept(node, "SELECT event_id FROM deliveries WHERE state = 'expired'")}
        ended = {id_ for (id_,) in kept(node, "SELECT id FROM events WHERE type = 'realtime.call.ended'")}
        ends = Counter(
            call_id
            for (call_id,) in kept(node, "SELECT call_id FROM events WHERE type = 'realtime.call.ended'")
        )
        calls = {call_id for (call_id,) in kept(node, "SELECT id FROM calls WHERE state = 'ended'")}
        is_open = kept(node, "SELECT id FROM calls WHERE state != 'ended'")
    finally:
        await asyncio.to_thread(node.kill)
        server.close()
        receiver.close()
    print(f"{len(events)} events, {sum(receiver.came.values())} came: {dict(states)}")
    assert waiting == 0, states
    assert states["exhausted"] == 0
    assert len(events) > 50
    assert not receiver.wrong
    # None is invented: whatever came had been committed, with this very body.
    assert {id_: events.get(id_) for id_ in receiver.bodies} == receiver.bodies
    # None is lost: what is not delivered is a phone that rang in vain, and says so.
    assert set(events) == told | late
    assert told <= receiver.delivered
    assert ended <= receiver.delivered
    # Each call has its end, and one: also those that a kill cut off.
    assert not is_open
    assert set(ends) == calls
    assert set(ends.values()) == {1}
    # The kills did cut deliveries off, or nothing was shown.
    assert any(count > 1 for count in receiver.came.values())
