"""One directory of present and past calls: each once, newest first, and present ones whatever the store does."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from offhook.calls.errors import CallError, call_not_found
from offhook.calls.past import CallQuery, CallRow, PastUnavailable
from offhook.calls.timeline import Timeline
from offhook.clock import SystemClock
from offhook.server.call_directory import CallDirectory
from offhook.server.services import ServerServices
from offhook.tenants import ConfiguredProjects


@dataclass
class Present:
    id: str
    created_at: float
    state: str = "answered"
    project_id: str = "proj_a"

    @property
    def timeline(self):
        return Timeline(self.id, SystemClock())

    def describe(self):
        return {"id": self.id, "state": self.state, "from": self.id, "carrier_call_id": f"CA-{self.id}"}

    def refers(self):
        return [{"refer": 1}]


@dataclass
class Calls:
    calls: list = field(default_factory=list)

    def find(self, project_id, call_id):
        for call in self.calls:
            if call.id == call_id and project_id in (None, call.project_id):
                return call
        raise call_not_found()

    def list(self, project_id):
        return [call for call in self.calls if project_id in (None, call.project_id)]

    def refused_sources(self, project_id):
        return []


@dataclass
class Past:
    """Holds calls as the store does: those too that are present, with whatever state they last had."""

    rows: list = field(default_factory=list)
    broken: bool = False

    def _check(self):
        if self.broken:
            raise PastUnavailable("disk I/O error")

    async def find(self, project_id, call_id):
        self._check()
        return next((row for row in self.rows if row.place[1] == call_id), None)

    async def timeline(self, call_id):
        self._check()
        return {"call_id": call_id, "data": ["kept"]}

    async def refers(self, call_id):
        self._check()
        return [{"refer": 7}]

    async def list(self, query, *, after, limit):
        self._check()
        rows = [
            row
            for row in sorted(self.rows, key=lambda row: row.place, reverse=True)
            if (after is None or row.place < after)
            and (query.state is None or row.described["state"] == query.state)
        ]
        return rows[:limit]


def kept(call_id, at, state="ended"):
    return CallRow((at, call_id), {"id": call_id, "state": state})


def directory(calls=(), rows=(), *, broken=False):
    past = Past(list(rows), broken)
    services = ServerServices(
        projects=ConfiguredProjects([]), calls=Calls(list(calls)), clock=SystemClock(), past=past
    )
    return CallDirectory(services)


async def all_pages(calls, query=None, *, limit):
    found, after = [], None
    for _ in range(50):
        page = await calls.page(query or CallQuery("proj_a"), after=after, limit=limit)
        assert len(page.calls) <= limit
        found += [call["id"] for call in page.calls]
        if not page.has_more:
            return found
        after = found[-1]
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 50])
async def test_each_call_is_listed_once_newest_first(limit):
    present = [Present(f"rtc_{at:02}", float(at)) for at in (3, 8, 9, 15)]
    stored = [kept(f"rtc_{at:02}", float(at)) for at in range(12)]  # some present, 15 is not written yet
    found = await all_pages(directory(present, stored), limit=limit)
    assert found == [f"rtc_{at:02}" for at in (15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]


async def test_a_present_call_is_judged_by_what_it_is_now():
    calls = directory([Present("rtc_1", 1.0, state="ended")], [kept("rtc_1", 1.0, state="answered")])
    assert await all_pages(calls, CallQuery("proj_a", state="answered"), limit=5) == []
    assert await all_pages(calls, CallQuery("proj_a", state="ended"), limit=5) == ["rtc_1"]


async def test_present_calls_are_found_by_the_carriers_id_and_by_number():
    calls = directory([Present("rtc_Ann", 1.0), Present("rtc_Bob", 2.0)])
    assert await all_pages(calls, CallQuery(None, carrier_call_id="CA-rtc_Ann"), limit=5) == ["rtc_Ann"]
    assert await all_pages(calls, CallQuery(None, number="bOB"), limit=5) == ["rtc_Bob"]


@pytest.mark.parametrize("query", [CallQuery(None), CallQuery(None, number="nobody")])
async def test_packets_are_sent_between_calls_that_are_described(query, monkeypatch):
    """To describe a call takes up to 0.1 ms: 10 of them are the millisecond that the loop may be held up."""
    turn, described = 0, Counter()

    async def other_work():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    describe = Present.describe
    monkeypatch.setattr(Present, "describe", lambda call: described.update([turn]) or describe(call))
    beside = asyncio.create_task(other_work())
    await directory([Present(f"rtc_{at:03}", float(at)) for at in range(200)]).page(
        query, after=None, limit=100
    )
    beside.cancel()
    assert described.total() >= 100
    assert max(described.values()) <= 10


async def test_the_operator_sees_the_calls_of_all_projects():
    calls = directory([Present("rtc_1", 1.0), Present("rtc_2", 2.0, project_id="proj_b")])
    assert await all_pages(calls, CallQuery(None), limit=5) == ["rtc_2", "rtc_1"]
    assert (await calls.describe(None, "rtc_2"))["id"] == "rtc_2"
    with pytest.raises(CallError):
        await calls.describe("proj_a", "rtc_2")


async def test_what_is_present_is_asked_itself_and_the_store_for_the_rest():
    calls = directory([Present("rtc_1", 1.0)], [kept("rtc_1", 1.0), kept("rtc_2", 2.0)])
    assert (await calls.describe("proj_a", "rtc_1"))["state"] == "answered"
    assert (await calls.describe("proj_a", "rtc_2"))["state"] == "ended"
    assert (await calls.timeline("proj_a", "rtc_1"))["data"] == []
    assert (await calls.timeline("proj_a", "rtc_2"))["data"] == ["kept"]
    assert await calls.refers("proj_a", "rtc_1") == [{"refer": 1}]
    assert await calls.refers("proj_a", "rtc_2") == [{"refer": 7}]
    for ask in (calls.describe, calls.timeline, calls.refers):
        with pytest.raises(CallError) as caught:
            await ask("proj_a", "rtc_3")
        assert (caught.value.status, caught.value.code) == (404, "call_id_not_found")


async def test_while_the_store_cannot_be_read_present_calls_are_shown_and_the_rest_is_said():
    calls = directory([Present("rtc_1", 1.0)], [kept("rtc_2", 2.0)], broken=True)
    assert (await calls.describe("proj_a", "rtc_1"))["id"] == "rtc_1"
    page = await calls.page(CallQuery("proj_a"), after=None, limit=5)
    assert ([call["id"] for call in page.calls], page.has_more) == (["rtc_1"], False)
    assert page.incomplete == "disk I/O error"
    for ask in (calls.describe, calls.timeline, calls.refers):
        with pytest.raises(CallError) as caught:
            await ask("proj_a", "rtc_2")
        assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
