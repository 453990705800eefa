"""
The database is locked by another process, or its disk is full: calls go on, the loss is said, and it mends by itself.

Decision 9 of the design: a webhook that cannot be stored is sent from memory.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.script import SCRIPT


class TroubledNode(Node):
    """Its log has errors, as it should: these tests look for them."""

    def faults(self) -> list[str]:
        return [line for line in super().faults() if '"store.' not in line]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TroubledNode]:
    with TroubledNode(tmp_path_factory.mktemp("troubled"), script=SCRIPT, seats=4) as running:
        yield running


async def readyz(node: Node) -> dict[str, Any]:
    async with httpx2.AsyncClient(timeout=15) as client:
        response = await client.get(node.base_url.removesuffix("/v1") + "/readyz")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def warned(node: Node, expected: bool, timeout: float = 20.0) -> list[str]:
    """Wait until `/readyz` warns of the database, or does not any more."""
    async with asyncio.timeout(timeout):
        while True:
            warnings: list[str] = (await readyz(node)).get("warnings", [])
            if any("the database cannot be written" in text for text in warnings) is expected:
                return warnings
            await asyncio.sleep(0.1)


@contextmanager
def locked(node: Node) -> Iterator[None]:
    """As a backup or a curious operator does it."""
    with closing(sqlite3.connect(node.data_dir / "offhook.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def full(node: TroubledNode) -> Iterator[None]:
    """No file of the process can grow beyond what its write-ahead log has now."""
    used = (node.data_dir / "offhook.db-wal").stat().st_size
    assert used > 2 * node.log_path.stat().st_size, "the log itself would hit the limit"
    before = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (used, before[1]))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def a_whole_call(app: DeveloperApp, phone: Phone) -> AsyncIterator[str]:
    """It is told of, accepted, heard, and hung up as always; inside of this it is up."""
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    async with Sideband(app.client, call_id) as sideband:
        await sideband.connection.response.create()
        await call.hears_sound(200)
        yield call_id
        call.hang_up()
        assert (await sideband.wait_closed())[0] == 1000
    assert (await app.next("realtime.call.ended")).call_id == call_id


async def stored(node: Node, call_id: str) -> None:
    """Wait until the call's end is in the database."""
    query = "SELECT state FROM calls WHERE id = ?"
    async with asyncio.timeout(20):
        while True:
            with closing(sqlite3.connect(node.data_dir / "offhook.db")) as connection:
                if connection.execute(query, (call_id,)).fetchall() == [("ended",)]:
                    return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("trouble", [locked, full])
async def test_calls_go_on_and_the_loss_is_said(node: TroubledNode, phone: Phone, trouble: Any) -> None:
    async with DeveloperApp(node) as app:
        said = len(node.log("store.trouble"))
        with trouble(node):
            async with a_whole_call(app, phone) as call_id:
                (warning,) = [text for text in await warned(node, True) if "cannot be written" in text]
                assert "calls go on" in warning
                await node.logged("store.trouble", count=said + 1)
            entries = await node.timeline(app.seat, call_id)
            attempts = [entry for entry in entries if entry["kind"] == "webhook"]
            assert attempts
            assert all(entry.get("unstored") for entry in attempts)
        await warned(node, False)
        await stored(node, call_id)
