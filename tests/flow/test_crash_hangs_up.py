"""
A crash hangs up (decision 12 of the design): `offhook serve` is killed with kill -9 while phones are on the line.

Within 5 s of its next start, phones that were answered get a BYE that their side takes for valid, phones that still
rang get a final response, and each call is closed: in the database, on its timeline and by `realtime.call.ended`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import ssl
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError

from offhook.certificates import development_certificate, server_context
from offhook.sip.message import Request
from testbed import DeveloperApp, Node, Phone, PhoneCall
from testbed.script import SCRIPT

IN_TIME_S = 5.0
IS_EARLY = "SELECT json_extract(snapshot, '$.early') FROM dialogs WHERE call_id = ?"
DIALOGS = "SELECT count(*) FROM dialogs WHERE call_id = ?"


def rows(node: Node, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(node.data_dir / "offhook.db")) as connection:
        return connection.execute(query, values).fetchall()


async def stored(node: Node, query: str, value: str, expected: object) -> None:
    """Wait until a query about one call gives this."""
    async with asyncio.timeout(30):
        while (found := rows(node, query, value)) != expected:
            assert isinstance(found, list)
            await asyncio.sleep(0.02)


async def answered(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    await call.answered()
    await app.next("realtime.call.answered")
    await stored(app.node, IS_EARLY, call_id, [(0,)])
    return call, call_id


async def closed(node: Node, app: DeveloperApp, call_id: str, *, sip_status: int | None = None) -> None:
    """The call's end is told once, and kept."""
    webhook = await app.next("realtime.call.ended")
    assert webhook.call_id == call_id
    data = json.loads(webhook.body)["data"]
    termination = {"result": "server_error", "reason": "failed", "cause": "the node crashed"}
    if sip_status is not None:
        termination["sip_status"] = sip_status  # type: ignore[assignment]
    assert data == {"call_id": call_id, **termination}
    await stored(node, DIALOGS, call_id, [(0,)])
    ((state, described, ended_at),) = rows(
        node, "SELECT state, described, ended_at FROM calls WHERE id = ?", call_id
    )
    shown = json.loads(described)
    assert state == shown["state"] == "ended"
    assert shown["termination"] == termination
    assert abs(ended_at - time.time()) < 60
    pieces = rows(node, "SELECT entries FROM timeline_pieces WHERE call_id = ? ORDER BY first", call_id)
    entries = [entry for (piece,) in pieces for entry in json.loads(piece)]
    assert [number for number, *_ in entries] == list(range(len(entries)))
    assert "ended: the node crashed" in [title for _, _, _, title, _ in entries]


async def test_everybody_is_hung_up_on_after_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    with Node(folder, script=SCRIPT, seats=5, ring_timeout_s=60) as node:
        async with AsyncExitStack() as stack:
            apps = [await stack.enter_async_context(DeveloperApp(node)) for _ in range(5)]
            phone = await stack.enter_async_context(Phone(node))
            secure = Phone(node, "tls", listens=_server(node, tmp_path / "phone"))
            secure = await stack.enter_async_context(secure)

            plain, plain_id = await answered(apps[0], phone)
            # The dialog of this one has moved on: a REFER has used up a number.
            referred, referred_id = await answered(apps[1], phone)
            referred.on_refer = (403, ())
            with pytest.raises(APIStatusError, match="403"):
                await apps[1].client.realtime.calls.refer(referred_id, target_uri="tel:+14155550123")
            over_tls, over_tls_id = await answered(apps[2], secure)
            rings = await phone.dial(apps[3].seat.project)
            rings_id = (await apps[3].incoming()).call_id
            await stored(node, IS_EARLY, rings_id, [(1,)])
            over, over_id = await answered(apps[4], phone)
            over.hang_up()
            await apps[4].next("realtime.call.ended")
            await stored(node, DIALOGS, over_id, [(0,)])

            node.kill()
            await asyncio.to_thread(node.start_again)
            ready = time.monotonic()
            for call in (plain, referred, over_tls):
                await _got_a_bye(call, ready)
            refused = await rings.refused(IN_TIME_S)
            assert (refused.status, refused.headers.get("Retry-After")) == (503, "1")

            await closed(node, apps[0], plain_id)
            await closed(node, apps[1], referred_id)
            await closed(node, apps[2], over_tls_id)
            await closed(node, apps[3], rings_id, sip_status=503)

            # The node takes calls as before, and no end is told of that was not one.
            await phone.dial(apps[4].seat.project)
            await apps[4].incoming()
            for app in apps:
                ended = [webhook for webhook in app.webhooks if webhook.type == "realtime.call.ended"]
                # One whose delivery was not noted before the crash may come again, as the same.
                assert len({webhook.headers["webhook-id"] for webhook in ended}) == 1


async def test_one_that_was_answered_but_not_noted_as_such_is_hung_up(tmp_path: Path) -> None:
    """The crash came between the 200 and its note: all that is known is that it rang."""
    with Node(tmp_path, script=SCRIPT, ring_timeout_s=60) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project)
            call_id = (await app.incoming()).call_id
            await stored(node, IS_EARLY, call_id, [(1,)])
            with closing(sqlite3.connect(node.data_dir / "offhook.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await app.accept(call_id)
                await call.answered()
                node.kill()
                other.execute("ROLLBACK")
            assert rows(node, IS_EARLY, call_id) == [(1,)]
            await asyncio.to_thread(node.start_again)
            ended = await call.ended(IN_TIME_S)
            assert ended.cause == "remote_bye"
            assert "no ACK to the refusal" in str(ended.reason_header)
            await closed(node, app, call_id, sip_status=503)


async def _got_a_bye(call: PhoneCall, ready: float) -> None:
    ended = await call.ended(IN_TIME_S)
    assert ended.cause == "remote_bye"
    assert "Temporary failure" in str(ended.reason_header)
    (wire,) = call.received("BYE")
    assert wire.at - ready < IN_TIME_S
    bye = wire.message
    assert isinstance(bye, Request)
    assert bye.cseq.number > max((request.cseq.number for request in call.refers), default=0)
    answer = await call.answered()
    assert bye.headers.get("From") == answer.headers.get("To")
    assert "200 BYE" in call.ladder()


def _server(node: Node, folder: Path) -> ssl.SSLContext:
    """A phone's certificate, by the node's own authority."""
    folder.mkdir()
    for name in ("ca.pem", "ca.key"):
        shutil.copy(node.ca.parent / name, folder)
    return server_context(development_certificate(folder, ("127.0.0.1",)))
