"""Events are stored, then sent: what a crash, a restart, a locked or full database and a rotation leave of them."""

import asyncio
import base64
import contextlib
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from openai import OpenAI
from sqlalchemy import text

from offhook.calls.errors import CallError
from offhook.calls.ports import WebhookEvent
from offhook.clock import SystemClock
from offhook.outbound import OutboundClient, OutboundPolicy
from offhook.store import Database
from offhook.store.endpoints import StoredEndpoints
from offhook.store.outbox import StoreOutbox
from offhook.store.writer import WriterLimits
from offhook.tenants import ConfiguredProjects, DeliveryQuery, Endpoints, Project, WebhookEndpoint
from offhook.webhooks import DeliverySettings, WebhookAnnouncer
from offhook.webhooks.queue import QueueLimits
from offhook.webhooks.schedule import RetryPolicy
from testbed.waiting import until


def secret(letter):
    return "whsec_" + base64.b64encode(letter.encode() * 32).decode()


SECRET, NEWER = secret("a"), secret("b")
ENDED = "realtime.call.ended"
INCOMING = "realtime.call.incoming"
FAST = RetryPolicy(first=0.01, longest=0.05, give_up_after=600.0)
SLOW = RetryPolicy(first=300.0, longest=300.0, give_up_after=6000.0)
QUICK = WriterLimits(group_s=0.001, retry_s=0.02)


@dataclass
class App:
    """A receiver that remembers what came, and answers as it is told."""

    status: int = 200
    silent: bool = False
    requests: list = field(default_factory=list)
    on_request: object = None
    writers: list = field(default_factory=list)
    port: int = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.requests]

    async def serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((headers, body))
                if self.silent:
                    await reader.read()  # until the other side gives up
                    break
                status = self.on_request() if self.on_request else self.status
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def app():
    one = App()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for writer in one.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


class Told:
    def __init__(self):
        self.attempts, self.exhausted = [], []


class Process:
    """What of a node has to do with webhooks, from its start to its end."""

    def __init__(
        self, folder, policy, *, ordinary=FAST, urgent=FAST, node="u0", limits=None, clock=None, failures=1000
    ):
        self.folder, self.policy, self.node = folder, policy, node
        self.clock = clock or SystemClock()
        self.settings = DeliverySettings(
            ordinary=ordinary,
            urgent=urgent,
            breaker_failures=failures,
            breaker_pause_s=0.01,
            limits=limits or QueueLimits(),
        )
        self.projects = ConfiguredProjects([Project("proj_1")])
        self.project = self.projects.by_id("proj_1")

    async def __aenter__(self):
        self.database = await Database.open("sqlite", self.folder, limits=QUICK)
        self.outbox = StoreOutbox(self.database, self.node)
        self.endpoints = Endpoints(self.projects, StoredEndpoints(self.database))
        await self.endpoints.load()
        self.client = OutboundClient()
        self.announcer = WebhookAnnouncer(
            self.client,
            endpoints=self.endpoints,
            clock=self.clock,
            draw=lambda: 0.5,
            outbox=self.outbox,
            settings=self.settings,
            policy=lambda endpoint: self.policy,
        )
        await self.announcer.resume()
        return self

    async def __aexit__(self, *_):
        await self.announcer.close()
        await self.client.close()
        await self.database.close()

    async def subscribe(self, url, *events, name="one"):
        endpoint = WebhookEndpoint(
            f"wh_{name}", url, (SECRET,), frozenset(events or (ENDED, INCOMING)), name=name, configured=False
        )
        assert await self.endpoints.save("proj_1", endpoint)
        return endpoint

    def tell(self, event_id="evt_1", event_type=ENDED):
        told = Told()
        announcement = self.announcer.announce(
            self.project,
            WebhookEvent(event_id, event_type, 1_760_000_000, {"call_id": f"rtc_{event_id}"}),
            urgent=event_type == INCOMING,
            on_attempt=told.attempts.append,
            on_exhausted=told.exhausted.append,
        )
        assert announcement is not None
        return announcement, told

    async def deliveries(self, **query):
        found = await self.outbox.search(DeliveryQuery(**{"limit": 100, **query}))
        return [delivery for _, delivery in found or []]

    async def delivery(self, **query):
        (one,) = await self.deliveries(**query)
        return one

    async def settled(self, state="delivered", count=1, **query):
        async with asyncio.timeout(20):
            while len(found := await self.deliveries(state=state, **query)) < count:
                await asyncio.sleep(0.01)
        return found


@pytest.fixture
def process(tmp_path):
    return lambda **kwargs: Process(tmp_path, OutboundPolicy(loopback=True), **kwargs)


def kept(folder, query):
    with contextlib.closing(sqlite3.connect(folder / "offhook.db")) as other:
        return other.execute(query).fetchall()


async def test_it_is_committed_before_it_is_sent(process, tmp_path):
    async with app() as one, process() as node:
        seen = []

        def look():
            seen.append(
                kept(tmp_path, "SELECT e.id, d.state FROM events e JOIN deliveries d ON d.event_id = e.id")
            )
            return 200

        one.on_request = look
        await node.subscribe(one.url)
        _, told = node.tell()
        await until(lambda: told.attempts)
    assert seen == [[("evt_1", "waiting")]]
    assert told.attempts[0].unstored is False


async def test_what_became_of_each_attempt_is_kept(process):
    async with app() as one, process() as node:
        answers = [500, 503, 204]
        one.on_request = lambda: answers.pop(0)
        endpoint = await node.subscribe(one.url)
        node.tell()
        (delivery,) = await node.settled()
        event, found, attempts = await node.outbox.find("proj_1", delivery.id)
    assert (found.endpoint_id, found.url, found.attempts, found.last_status) == (endpoint.id, one.url, 3, 204)
    assert found.finished_at >= found.created_at
    assert found.due_at is None
    assert [(a.number, a.status) for a in attempts] == [(1, 500), (2, 503), (3, 204)]
    assert attempts[0].error == "not a 2xx"
    assert abs(attempts[0].started_at - time.time()) < 100
    assert event.body == one.requests[0][1]


async def test_what_waits_goes_on_after_a_restart(process):
    async with app() as one:
        one.status = 500
        async with process(ordinary=SLOW) as node:
            await node.subscribe(one.url)
            node.tell()
            async with asyncio.timeout(20):
                while not (found := await node.deliveries()) or found[0].attempts == 0:
                    await asyncio.sleep(0.01)
            before = found[0]
            assert 250 < before.due_at - time.time() < 400  # it waits for its second attempt
        async with process(ordinary=SLOW) as node:  # and it still does
            await asyncio.sleep(0.2)
            assert len(one.requests) == 1
            assert (await node.delivery()).due_at == pytest.approx(before.due_at, abs=1)
            one.status = 200
            found = await node.outbox.find(None, before.id)
            node.announcer.redeliver(found[0], found[1])
            (after,) = await node.settled()
    assert (after.id, after.attempts) == (before.id, 2)
    (first, body), (second, again) = one.requests
    assert body == again
    assert first["webhook-id"] == second["webhook-id"] == "evt_1"


async def test_an_attempt_that_was_due_is_made_at_the_start_and_signed_anew(process):
    async with app() as one:
        one.status = 500
        async with process(ordinary=RetryPolicy(1.2, 2.0, 600.0)) as node:
            await node.subscribe(one.url)
            _, told = node.tell()
            await until(lambda: told.attempts)
        one.status = 200
        async with process(ordinary=RetryPolicy(1.2, 2.0, 600.0)) as node:
            await node.settled()
    (first, body), (second, again) = one.requests
    assert body == again
    assert int(second["webhook-timestamp"]) > int(first["webhook-timestamp"])
    for headers, sent in one.requests:
        with OpenAI(api_key="sk-test", webhook_secret=SECRET) as client:
            assert client.webhooks.unwrap(sent, headers).id == "evt_1"


async def test_a_phone_that_rang_before_a_restart_is_no_news_after_it(process):
    async with app() as one:
        one.status = 500
        async with process(urgent=SLOW) as node:
            await node.subscribe(one.url)
            _, told = node.tell(event_type=INCOMING)
            await until(lambda: told.attempts)
            assert (await node.delivery()).state == "waiting"
        async with process() as node:
            (delivery,) = await node.settled("expired")
    assert "rings no more" in delivery.last_error
    assert len(one.requests) == 1


async def test_a_decided_call_is_kept_as_expired(process):
    async with app() as one, process(urgent=SLOW) as node:
        one.status = 500
        await node.subscribe(one.url)
        announcement, told = node.tell(event_type=INCOMING)
        await until(lambda: told.attempts)
        announcement.expire()
        (delivery,) = await node.settled("expired")
    assert delivery.last_error == "the call was decided"
    assert delivery.last_status == 500


async def test_another_nodes_deliveries_are_left_to_it(process):
    async with app() as one:
        one.status = 500
        async with process(node="u1") as node:
            await node.subscribe(one.url)
            _, told = node.tell()
            await until(lambda: told.attempts)
        count = len(one.requests)
        async with process(node="u0") as node:
            await asyncio.sleep(0.2)
            assert (await node.delivery()).state == "waiting"
    assert len(one.requests) == count


async def test_while_the_database_is_locked_events_go_out_and_are_said_to_be_unstored(
    process, tmp_path, monkeypatch
):
    monkeypatch.setattr("offhook.store.database.BUSY_MS", 20)
    async with app() as one, process() as node:
        await node.subscribe(one.url)
        with contextlib.closing(sqlite3.connect(tmp_path / "offhook.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            _, told = node.tell()
            await until(lambda: told.attempts)
            assert time.monotonic() - began >= 0.2
            assert told.attempts[0].unstored is True
            assert told.attempts[0].error is None
            assert kept(tmp_path, "SELECT * FROM events") == []
            other.execute("ROLLBACK")
        (delivery,) = await node.settled()  # and once it can be written, it is all there
        event, _, attempts = await node.outbox.find("proj_1", delivery.id)
        assert (event.body, len(attempts)) == (one.requests[0][1], 1)
        _, told = node.tell("evt_2")
        await until(lambda: told.attempts)
    assert told.attempts[0].unstored is False
    assert one.ids == ["evt_1", "evt_2"]


async def test_with_a_full_disk_events_go_out_and_are_said_to_be_unstored(process):
    async with app() as one, process() as node:
        await node.subscribe(one.url)
        await node.database.write(lambda c: c.execute(text("PRAGMA max_page_count = 1")))  # as large as it is
        tellings = [node.tell(f"evt_{number}")[1] for number in range(300)]
        await until(lambda: all(told.attempts for told in tellings))
        assert any(told.attempts[0].unstored for told in tellings)
    assert sorted(one.ids) == sorted(f"evt_{number}" for number in range(300))


async def test_an_endpoint_that_flaps_gets_everything(process):
    async with app() as one, process() as node:
        turn = iter(range(100_000))
        one.on_request = lambda: 200 if next(turn) % 3 == 2 else 500
        await node.subscribe(one.url)
        for number in range(40):
            node.tell(f"evt_{number}")
        await node.settled(count=40)
    bodies = {}
    for headers, body in one.requests:
        assert bodies.setdefault(headers["webhook-id"], body) == body
    assert len(bodies) == 40


async def test_several_endpoints_each_have_their_own_delivery(process):
    async with app() as good, app() as bad, process(ordinary=SLOW) as node:
        bad.status = 500
        await node.subscribe(good.url, name="good")
        await node.subscribe(bad.url, name="bad")
        await node.subscribe(good.url, INCOMING, name="other")
        node.tell()
        await node.settled()
        await until(lambda: bad.requests)
        assert (await node.delivery(endpoint_id="wh_good")).state == "delivered"
        assert (await node.delivery(endpoint_id="wh_bad")).state == "waiting"
        assert await node.deliveries(endpoint_id="wh_other") == []


async def test_a_rotated_secret_signs_what_already_waits(process):
    async with app() as one, process() as node:
        one.status = 500
        endpoint = await node.subscribe(one.url)
        node.tell()
        await until(lambda: one.requests)
        now = time.time()
        rotated = replace(endpoint, secrets=(NEWER, SECRET), old_secrets_until=(now + 100,))
        await node.endpoints.save("proj_1", rotated)
        await until(lambda: " " in one.requests[-1][0]["webhook-signature"])
        for one_secret in (SECRET, NEWER):
            with OpenAI(api_key="sk-test", webhook_secret=one_secret) as client:
                client.webhooks.unwrap(one.requests[-1][1], one.requests[-1][0])
        await node.endpoints.save("proj_1", replace(rotated, old_secrets_until=(now - 1,)))  # its day is over
        await until(lambda: " " not in one.requests[-1][0]["webhook-signature"])
        with OpenAI(api_key="sk-test", webhook_secret=NEWER) as client:
            client.webhooks.unwrap(one.requests[-1][1], one.requests[-1][0])
        one.status = 200
        await node.settled()


async def test_what_waits_follows_its_endpoint_to_a_new_url(process):
    async with app() as old, app() as new, process() as node:
        old.status = 500
        endpoint = await node.subscribe(old.url)
        node.tell()
        await until(lambda: old.requests)
        await node.endpoints.save("proj_1", replace(endpoint, url=new.url))
        (delivery,) = await node.settled()
    assert delivery.url == new.url
    assert new.ids == ["evt_1"]


async def test_a_delivery_whose_endpoint_is_gone_ends_with_that_reason(process):
    async with app() as one, process() as node:
        one.status = 500
        endpoint = await node.subscribe(one.url)
        _, told = node.tell()
        await until(lambda: one.requests)
        assert await node.endpoints.delete("proj_1", endpoint)
        (delivery,) = await node.settled("exhausted")
        assert "the endpoint is gone" in delivery.last_error
        assert "the endpoint is gone" in told.exhausted[0]
        event, found, _ = await node.outbox.find("proj_1", delivery.id)
        with pytest.raises(CallError) as refused:
            node.announcer.redeliver(event, found)
    assert (refused.value.status, refused.value.code) == (409, "webhook_endpoint_gone")


async def test_a_project_that_a_reload_removes_takes_its_deliveries_with_it(process):
    async with app() as one, process() as node:
        one.status = 500
        await node.subscribe(one.url)
        node.tell()
        await until(lambda: one.requests)
        node.projects.replace([])
        await node.settled("exhausted")


async def test_redelivery_is_the_same_event_in_a_delivery_of_its_own(process):
    async with app() as one, process() as node:
        await node.subscribe(one.url)
        node.tell(event_type=INCOMING)
        (first,) = await node.settled()
        event, found, _ = await node.outbox.find("proj_1", first.id)
        again = node.announcer.redeliver(event, found)
        assert again.id != first.id
        await node.settled(count=2)
    (headers, body), (second, repeated) = one.requests
    assert (headers["webhook-id"], body) == (second["webhook-id"], repeated)


async def test_redelivery_of_an_old_call_outlives_a_restart(process):
    """Who asked for it knew that the phone rings no more."""
    async with app() as one:
        async with process(ordinary=RetryPolicy(0.2, 1.0, 600.0)) as node:
            await node.subscribe(one.url)
            node.tell(event_type=INCOMING)
            (first,) = await node.settled()
            one.status = 500
            event, found, _ = await node.outbox.find("proj_1", first.id)
            node.announcer.redeliver(event, found)
            await until(lambda: len(one.requests) == 2)
        one.status = 200
        async with process() as node:
            await node.settled(count=2)


async def test_an_attempt_under_way_is_not_doubled(process):
    async with app() as one, process() as node:
        one.silent = True
        await node.subscribe(one.url)
        node.tell()
        await until(lambda: one.requests)
        event, found, _ = await node.outbox.find(None, (await node.delivery()).id)
        with pytest.raises(CallError) as refused:
            node.announcer.redeliver(event, found)
    assert refused.value.code == "webhook_delivery_under_way"


async def test_deliveries_are_found_by_call_type_and_state_page_by_page(process):
    async with app() as one, process() as node:
        await node.subscribe(one.url)
        for number in range(5):
            node.tell(f"evt_{number}", INCOMING if number == 3 else ENDED)
        await node.settled(count=5)
        assert [d.event_id for d in await node.deliveries(call_id="rtc_evt_2")] == ["evt_2"]
        assert [d.event_id for d in await node.deliveries(event_type=INCOMING)] == ["evt_3"]
        assert await node.deliveries(state="waiting") == []
        assert await node.deliveries(project_id="proj_2") == []
        found, after = [], None
        while page := await node.deliveries(after=after, limit=2):
            found += [delivery.event_id for delivery in page]
            after = page[-1].id
        assert sorted(found) == [f"evt_{number}" for number in range(5)]
        assert await node.outbox.search(DeliveryQuery(after="whd_none")) is None
        assert await node.outbox.find("proj_2", (await node.deliveries())[0].id) is None


FEW = QueueLimits(waiting=4)


async def test_more_than_can_wait_in_memory_wait_in_the_database(process):
    """Decision 9: for up to 72 h, however many calls end while the endpoint is down."""
    async with app() as one, process(limits=FEW) as node:
        one.status = 500
        await node.subscribe(one.url)
        for number in range(60):
            node.tell(f"evt_{number}")
        await until(lambda: len(node.announcer._live) <= FEW.waiting + FEW.ordinary)
        assert node.announcer.waiting == 60
        await node.settled("waiting", 60)
        one.status = 200
        await node.settled(count=60)
        assert node.announcer.waiting == 0
        assert await node.deliveries(state="exhausted") == []
    taken = [headers["webhook-id"] for headers, _ in one.requests]
    assert set(taken) == {f"evt_{number}" for number in range(60)}


async def test_they_wait_there_over_a_restart_too(process):
    async with app() as one:
        one.silent = True  # no attempt ends, so that no other begins in its place
        async with process(limits=FEW, ordinary=SLOW) as node:
            await node.subscribe(one.url)
            for number in range(60):
                node.tell(f"evt_{number}")
            await node.settled("waiting", 60)
            # The attempts under way have arrived, so that none comes in yet from before the restart.
            await until(lambda: len(one.requests) == FEW.ordinary)
        tried = set(one.ids)
        only_waited = {f"evt_{number}" for number in range(60)} - tried
        assert len(only_waited) >= 60 - FEW.waiting - FEW.ordinary
        one.silent = False
        async with process(limits=FEW, ordinary=SLOW) as node:
            await until(lambda: only_waited <= set(one.ids))
    came = Counter(one.ids)
    assert {came[event_id] for event_id in only_waited} == {1}


async def test_what_waits_in_the_database_alone_can_be_delivered_now(process):
    async with app() as one, process(limits=QueueLimits(waiting=1, ordinary=1)) as node:
        one.silent = True
        await node.subscribe(one.url)
        for number in range(5):
            node.tell(f"evt_{number}")
        found = await node.settled("waiting", 5)
        await until(lambda: node.announcer.waiting == 5)
        (last,) = [delivery for delivery in found if delivery.event_id == "evt_4"]
        event, record, _ = await node.outbox.find(None, last.id)
        again = node.announcer.redeliver(event, record)
        assert again.id == last.id
        assert node.announcer.waiting == 5


async def test_what_no_attempt_got_through_for_in_time_is_given_up(process):
    class Clock(SystemClock):
        ahead = 0.0

        def monotonic(self):
            return super().monotonic() + self.ahead

        def wall(self):
            return super().wall() + self.ahead

    clock = Clock()
    async with (
        app() as one,
        process(limits=FEW, clock=clock, ordinary=RetryPolicy(0.01, 0.01, 600.0), failures=2) as node,
    ):
        one.status = 500
        await node.subscribe(one.url)
        for number in range(40):
            node.tell(f"evt_{number}")
        await node.settled("waiting", 40)
        clock.ahead = 700.0
        given_up = await node.settled("exhausted", 40)
        assert any("its time was over" in delivery.last_error for delivery in given_up)
        await until(lambda: node.announcer.waiting == 0)


async def test_a_clock_that_was_set_back_puts_nothing_off_for_long(process):
    class Yesterday(SystemClock):
        def wall(self):
            return super().wall() - 24 * 3600

    async with app() as one:
        one.status = 500
        async with process(ordinary=RetryPolicy(5.0, 5.0, 600.0)) as node:
            await node.subscribe(one.url)
            _, told = node.tell()
            await until(lambda: told.attempts)
        one.status = 200
        async with process(ordinary=RetryPolicy(0.01, 0.05, 600.0), clock=Yesterday()) as node:
            await node.settled()


async def test_endpoints_that_come_and_go_leave_nothing(process):
    async with app() as one, process() as node:
        for number in range(30):
            endpoint = await node.subscribe(one.url, name=f"e{number}")
            _, told = node.tell(f"evt_{number}")
            await until(lambda told=told: told.attempts)
            assert await node.endpoints.delete("proj_1", endpoint)
        assert len(node.announcer._drivers) <= 2
        assert node.announcer._live == {}


async def test_a_node_that_stops_leaves_what_is_not_sent_to_its_next_start(process):
    async with app() as one:
        async with process() as node:
            await node.subscribe(one.url)
            node.tell("evt_1")
            await node.announcer.close()  # before the commit
            _, told = node.tell("evt_2")
            await asyncio.sleep(0.3)
        assert told.exhausted == []
        async with process() as node:
            await node.settled(count=2)
    assert set(one.ids) == {"evt_1", "evt_2"}
