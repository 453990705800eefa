"""What has been kept for long enough is deleted, whole and little by little; nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError

from offhook.store import schema as tables
from offhook.store.retention import DAY_S, Retention, _old_calls, _old_events
from testbed.database import URL, opened_database

NOW = 1_000 * DAY_S


class Clock:
    def monotonic(self):
        return 0.0

    def wall(self):
        return NOW


def call(call_id, ended_days_ago):
    ended_at = None if ended_days_ago is None else NOW - ended_days_ago * DAY_S
    row = dict.fromkeys(("from_user", "to_user", "request_uri", "sip_call_id"), "")
    return row | {
        "id": call_id,
        "project_id": "proj_a",
        "node": "u0",
        "created_at": 0.0,
        "ended_at": ended_at,
        "state": "ended" if ended_at else "active",
        "described": {},
    }


def event(event_id, days_ago):
    return {
        "id": event_id,
        "project_id": "proj_a",
        "type": "realtime.call.ended",
        "created_at": NOW - days_ago * DAY_S,
        "body": b"{}",
        "urgent": False,
    }


def delivery(delivery_id, event_id, finished):
    return {
        "id": delivery_id,
        "event_id": event_id,
        "project_id": "proj_a",
        "endpoint_id": "wh_1",
        "node": "u0",
        "url": "http://x/",
        "state": "delivered" if finished else "waiting",
        "attempts": 1,
        "created_at": 0.0,
        "finished_at": 1.0 if finished else None,
    }


async def put(database, table, *rows):
    await database.write(lambda connection: connection.execute(insert(table), list(rows)))


async def ids(database, column):
    return set(await database.read(lambda connection: connection.execute(select(column)).scalars().all()))


async def test_ended_calls_go_with_all_that_is_theirs(tmp_path):
    async with opened_database(tmp_path) as database:
        calls = [call("rtc_old", 31), call("rtc_new", 29), call("rtc_alive", None), call("rtc_kept", 40)]
        await put(database, tables.calls, *calls)
        for one in calls:
            owned = {"call_id": one["id"], "number": 0}
            piece = {"call_id": one["id"], "first": 0, "entries": [[0, 0.0, "sip", "", {}]]}
            await put(database, tables.timeline_pieces, piece, piece | {"first": 1})
            await put(database, tables.turns, owned | {"at": 0.0, "described": {}})
            await put(database, tables.refers, owned | {"described": {}})
        recording = {
            "id": "rec_1",
            "call_id": "rtc_kept",
            "project_id": "proj_a",
            "path": "",
            "state": "saved",
        }
        await put(database, tables.recordings, recording | {"started_at": 0.0})
        assert await Retention(database, 30, Clock()).sweep() == (1, 0)
        left = {"rtc_new", "rtc_alive", "rtc_kept"}
        assert await ids(database, tables.calls.c.id) == left
        for table in (tables.timeline_pieces, tables.turns, tables.refers):
            assert await ids(database, table.c.call_id) == left


async def test_finished_events_go_and_those_on_their_way_stay(tmp_path):
    async with opened_database(tmp_path) as database:
        await put(database, tables.events, event("evt_old", 31), event("evt_new", 1), event("evt_due", 31))
        await put(database, tables.events, *(event(f"evt_{n}", 40) for n in range(120)))
        await put(
            database,
            tables.deliveries,
            delivery("whd_old", "evt_old", finished=True),
            delivery("whd_new", "evt_new", finished=True),
            delivery("whd_done", "evt_due", finished=True),
            delivery("whd_due", "evt_due", finished=False),
        )
        attempts = [
            {"delivery_id": one, "number": 1, "started_at": 0.0, "duration_ms": 1.0}
            for one in ("whd_old", "whd_new", "whd_due")
        ]
        await put(database, tables.attempts, *attempts)
        assert await Retention(database, 30, Clock()).sweep() == (0, 121)
        assert await ids(database, tables.events.c.id) == {"evt_new", "evt_due"}
        assert await ids(database, tables.deliveries.c.id) == {"whd_new", "whd_done", "whd_due"}
        assert await ids(database, tables.attempts.c.delivery_id) == {"whd_new", "whd_due"}


async def test_it_looks_by_itself_and_outlives_a_database_in_trouble(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("offhook.store.retention.LOOK_EVERY_S", 0.01)
    async with opened_database(tmp_path) as database:
        await put(database, tables.calls, call("rtc_old", 31))
        retention = Retention(database, 30, Clock())
        sweep, failures = retention.sweep, [OperationalError("", {}, Exception("database is locked"))]

        async def failing_once():
            if failures:
                raise failures.pop()
            return await sweep()

        monkeypatch.setattr(retention, "sweep", failing_once)
        retention.start()
        async with asyncio.timeout(30):
            while await ids(database, tables.calls.c.id):
                await asyncio.sleep(0.01)
        retention.close()
    assert "tried again" in caplog.text


@pytest.mark.skipif(not URL.startswith("sqlite"), reason="another database explains itself otherwise")
@pytest.mark.parametrize(
    ("query", "index"),
    [
        (_old_calls, "calls_by_end"),
        (_old_events, "events_of_all_by_time"),
    ],
)
async def test_looking_for_old_ones_reads_no_whole_table(tmp_path, query, index):
    sql = str(query(1.0).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    async with opened_database(tmp_path) as database:
        plan = await database.read(lambda c: [row[3] for row in c.execute(text(f"EXPLAIN QUERY PLAN {sql}"))])
    assert any(index in step for step in plan), plan
