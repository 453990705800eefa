"""What was kept of calls is there after a restart: in lists, by id, with their timelines and transfers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import httpx2
import pytest

from testbed import DeveloperApp, Node, Phone
from testbed.script import SCRIPT


async def test_calls_timelines_and_transfers_survive_a_restart(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project, headers=(("X-Twilio-CallSid", "CA123"),))
            first = (await app.incoming()).call_id
            await app.accept(first)
            await call.answered()
            await app.client.realtime.calls.hangup(first)
            await call.ended()
            before = await node.describe(app.seat, first)
            story = await node.timeline(app.seat, first)
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            assert await node.describe(app.seat, first) == before
            assert await node.timeline(app.seat, first) == story
            assert (await node.get(app.seat, f"/realtime/calls/{first}/refers"))["data"] == []
            await phone.dial(app.seat.project)
            second = (await app.incoming()).call_id
            await app.client.realtime.calls.reject(second)

            listed = await node.get(app.seat, "/realtime/calls")
            assert [one["id"] for one in listed["data"]] == [second, first]
            assert "incomplete" not in listed
            page = await node.get(app.seat, "/realtime/calls?limit=1")
            assert ([one["id"] for one in page["data"]], page["has_more"]) == ([second], True)
            page = await node.get(app.seat, f"/realtime/calls?limit=1&after={second}")
            assert ([one["id"] for one in page["data"]], page["has_more"]) == ([first], False)
            for query in ("carrier_call_id=CA123", f"sip_call_id={before['sip_call_id']}"):
                found = await node.get(app.seat, f"/realtime/calls?{query}")
                assert [one["id"] for one in found["data"]] == [first]
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {app.seat.api_key}"}) as client:
                url = f"{node.base_url}/realtime/calls/{first}/hangup"
                assert (await client.post(url)).status_code == 404


@pytest.mark.parametrize("database", ["none"])
async def test_with_no_database_nothing_is_kept(tmp_path: Path, monkeypatch, database: str) -> None:
    monkeypatch.setenv("OFFHOOK_SERVER__DATABASE", database)
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            await phone.dial(app.seat.project)
            call_id = (await app.incoming()).call_id
            await app.client.realtime.calls.reject(call_id)
            listed = await node.get(app.seat, "/realtime/calls")
            assert [one["id"] for one in listed["data"]] == [call_id]
    assert not (node.data_dir / "offhook.db").exists()


async def test_a_node_with_a_damaged_database_says_so_and_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "offhook.db").write_bytes(
        b"no database at all, yet long enough to be read as one" * 99
    )
    with pytest.raises(AssertionError, match="the node ended with 1") as ended, Node(tmp_path, script=SCRIPT):
        pass
    said = str(ended.value)
    assert "offhook.db cannot be used: file is not a database" in said
    assert "backup" in said
    assert "Traceback" not in said


async def test_while_another_process_locks_the_database_calls_go_on_and_it_is_said(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone, httpx2.AsyncClient() as client:
            url = node.base_url.removesuffix("/v1") + "/readyz"
            with contextlib.closing(sqlite3.connect(node.data_dir / "offhook.db", timeout=30)) as other:
                other.isolation_level = None
                other.execute("BEGIN EXCLUSIVE")
                call = await phone.dial(app.seat.project)
                call_id = (await app.incoming()).call_id
                await app.accept(call_id)
                await call.answered()
                async with asyncio.timeout(20):
                    while "cannot be written" not in (await client.get(url)).text:
                        await asyncio.sleep(0.05)
                assert (await client.get(url)).status_code == 200
                await app.client.realtime.calls.hangup(call_id)
                await call.ended()
                other.execute("ROLLBACK")
            async with asyncio.timeout(20):
                while "cannot be written" in (await client.get(url)).text:
                    await asyncio.sleep(0.05)
            before = await node.timeline(app.seat, call_id)
            assert (await node.logged("store.well"))["lost"] == 0
        node.excuse("store.trouble")
    with Node(tmp_path, script=SCRIPT) as node:
        node.excuse("store.trouble")  # the log goes on from before
        assert await node.timeline(node.seat(), call_id) == before
