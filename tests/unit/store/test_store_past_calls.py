"""What is read of calls that are over: the same bodies as of present ones, found by all that people know of a call."""

from __future__ import annotations

from contextlib import asynccontextmanager

import orjson
import pytest
from sqlalchemy import select, text

from offhook.calls.journal import CallTimes
from offhook.calls.past import CallQuery, PastUnavailable
from offhook.calls.timeline import Timeline
from offhook.store import schema as tables
from offhook.store.journal import StoreJournal
from offhook.store.json_text import Json
from offhook.store.past import StorePastCalls
from testbed.database import opened_database


class FixedClock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_760_000_000.25 + self.now


def described(call_id, **fields):
    return {
        "id": call_id,
        "project_id": "proj_a",
        "state": "ended",
        "created_at": 0,
        "from": '"Ann" <sip:+15551230000@carrier>;tag=1',
        "to": "<sip:+15559870000@here>",
        "request_uri": "sip:proj_a@here",
        "sip_call_id": f"sip-{call_id}",
        "carrier_call_id": None,
        "termination": {"result": "success", "reason": "hangup"},
    } | fields


class Kept:
    def __init__(self, database):
        self.database = database
        self.journal = StoreJournal(database.writer, "u0")
        self.past = StorePastCalls(database)

    def call(self, call_id, at=1_000.0, **fields):
        self.journal.save(described(call_id, **fields), CallTimes(at, None, None))

    async def written(self):
        await self.database.write(lambda connection: None)

    async def ids(self, *, after=None, limit=10, **query):
        return [row.place[1] for row in await self.past.list(CallQuery(**query), after=after, limit=limit)]


@asynccontextmanager
async def opened(folder):
    async with opened_database(folder) as database:
        yield Kept(database)


async def test_a_past_timeline_reads_like_the_present_one(tmp_path):
    clock = FixedClock()
    async with opened(tmp_path) as kept:
        timeline = Timeline("rtc_1", clock, kept.journal.entry)
        timeline.record("sip", "INVITE", direction="in", message="INVITE sip:x SIP/2.0\r\nFrom: Jürgen\r\n")
        clock.now += 1.2345
        timeline.record("call", "reported late", at=100.5, items=[{"deep": [1, 2.5, None]}])
        timeline.record("turn", "answered 500 ms after the caller's last word", committed_ms=320.5)
        await kept.written()
        assert await kept.past.timeline("rtc_1") == timeline.to_api()
        turns = await kept.database.read(lambda c: c.execute(select(tables.turns)).all())
    assert [(turn.number, turn.described) for turn in turns] == [(2, {"committed_ms": 320.5})]


async def test_entries_that_were_not_written_are_counted(tmp_path):
    clock = FixedClock()
    async with opened(tmp_path) as kept:
        timeline = Timeline("rtc_1", clock, kept.journal.entry)
        for number in range(5):
            timeline.record("call", str(number))
            await kept.written()  # each is a piece of its own
        await kept.database.write(
            lambda c: c.execute(tables.timeline_pieces.delete().where(tables.timeline_pieces.c.first == 2))
        )
        body = await kept.past.timeline("rtc_1")
    assert body["dropped"] == 1
    assert [entry["title"] for entry in body["data"]] == ["0", "1", "3", "4"]


async def test_what_was_handed_over_may_change_afterwards(tmp_path):
    """The thread writes later: it must write what was true when it was told."""
    async with opened(tmp_path) as kept:
        call, details = described("rtc_1", media={"lost": 1}), {"steps": [1]}
        refer = {"call_id": "rtc_1", "refer": 1, "updates": [{"status": "pending"}]}
        kept.journal.save(call, CallTimes(5.0, None, None))
        Timeline("rtc_1", FixedClock(), kept.journal.entry).record("call", "x", **details)
        kept.journal.refer(refer)
        call["media"]["lost"] = 99
        details["steps"].append(2)
        refer["updates"].clear()
        await kept.written()
        assert (await kept.past.find("proj_a", "rtc_1")).described["media"] == {"lost": 1}
        assert (await kept.past.timeline("rtc_1"))["data"][0]["steps"] == [1]
        assert await kept.past.refers("rtc_1") == [
            {"call_id": "rtc_1", "refer": 1, "updates": [{"status": "pending"}]}
        ]


async def test_a_call_is_found_by_its_project_or_by_the_operator(tmp_path):
    async with opened(tmp_path) as kept:
        kept.call("rtc_1")
        await kept.written()
        assert (await kept.past.find("proj_a", "rtc_1")).described == described("rtc_1")
        assert await kept.past.find("proj_b", "rtc_1") is None
        assert (await kept.past.find(None, "rtc_1")).place == (1_000.0, "rtc_1")
        assert await kept.past.find("proj_a", "rtc_2") is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"project_id": "proj_a"}, ["rtc_3", "rtc_2", "rtc_1"]),
        ({}, ["rtc_4", "rtc_3", "rtc_2", "rtc_1"]),
        ({"state": "answered"}, ["rtc_3"]),
        ({"sip_call_id": "sip-rtc_2"}, ["rtc_2"]),
        ({"carrier_call_id": "CA7"}, ["rtc_1"]),
        ({"number": "+1555123"}, ["rtc_4", "rtc_3", "rtc_2", "rtc_1"]),
        ({"number": "ANN"}, ["rtc_4", "rtc_3", "rtc_2", "rtc_1"]),
        ({"number": "100%"}, ["rtc_2"]),
        ({"number": "_"}, ["rtc_4", "rtc_3", "rtc_1"]),
        ({"number": "nobody"}, []),
        ({"created_after": 10.0, "created_before": 30.5}, ["rtc_3", "rtc_2"]),
        ({"after": (30.5, "rtc_3"), "limit": 1}, ["rtc_3"]),
        ({"limit": 2}, ["rtc_4", "rtc_3"]),
    ],
)
async def test_calls_are_found_by_what_people_know_of_them(tmp_path, query, found):
    async with opened(tmp_path) as kept:
        kept.call("rtc_1", 10.0, carrier_call_id="CA7")
        kept.call("rtc_2", 20.0, request_uri="sip:100%25@here", to="<sip:100%@here>")
        kept.call("rtc_3", 30.0, state="answered")
        kept.call("rtc_3", 30.0, state="answered")
        kept.call("rtc_4", 30.5, project_id="proj_b")
        await kept.written()
        assert await kept.ids(**query) == found


async def test_calls_of_one_moment_are_paged_without_gaps(tmp_path):
    async with opened(tmp_path) as kept:
        for number in range(7):
            kept.call(f"rtc_{number}", 5.0)
        await kept.written()
        seen, place = [], None
        while rows := await kept.past.list(CallQuery(), after=place, limit=3):
            seen += [row.place[1] for row in rows]
            place = rows[-1].place
    assert seen == [f"rtc_{number}" for number in reversed(range(7))]


async def test_a_database_that_cannot_be_read_is_said(tmp_path):
    async with opened(tmp_path) as kept:
        await kept.database.write(lambda c: c.execute(text("DROP TABLE calls")))
        with pytest.raises(PastUnavailable, match=r"cannot be read: .*\bcalls\b"):
            await kept.past.find("proj_a", "rtc_1")


@pytest.mark.parametrize(
    "value",
    [{"text": "\ud800"}, {"number": 2**80}, {"rate": float("nan")}, {1: {2: object()}}, {"é": "\x00"}],
)
async def test_whatever_is_handed_over_becomes_json_that_can_be_read_back(tmp_path, value):
    assert isinstance(orjson.loads(str(Json.of(value))), dict)
    nested = value
    for _ in range(2_000):
        nested = {"in": nested}
    assert isinstance(orjson.loads(str(Json.of(nested))), dict)


async def test_a_nul_in_a_callers_header_costs_no_row(tmp_path):
    """PostgreSQL takes none, and says so of the whole row."""
    async with opened(tmp_path) as kept:
        names = ("from", "to", "request_uri", "sip_call_id", "carrier_call_id")
        kept.call("rtc_1", **dict.fromkeys(names, "a\0b"))
        timeline = Timeline("rtc_1", FixedClock(), kept.journal.entry)
        timeline.record("sip", "INVITE a\0b", message="\0 \\\\u0000 \\\0")
        await kept.written()
        (row,) = await kept.past.list(CallQuery(), after=None, limit=1)
        assert {row.described[name] for name in names} == {"a\ufffdb"}
        ((entry),) = (await kept.past.timeline("rtc_1"))["data"]
        assert (entry["title"], entry["message"]) == ("INVITE a\ufffdb", "\ufffd \\\\u0000 \\\ufffd")
        columns = [tables.calls.c[name] for name in ("from_user", "to_user", *names[2:])]
        texts = await kept.database.read(lambda c: [*c.execute(select(*columns)).one()])
        assert set(texts) == {"a\ufffdb"}
        assert await kept.ids(number="A\0B") == ["rtc_1"]
