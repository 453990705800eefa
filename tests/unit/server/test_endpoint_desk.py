"""Changes of webhook endpoints that meet each other, and what rotations leave of old secrets."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from openai import OpenAI
from sqlalchemy import create_engine, text

from offhook.calls.errors import CallError
from offhook.outbound import STRANGER
from offhook.server.endpoint_desk import MAX_ENDPOINTS, EndpointDesk
from offhook.store import Database, database
from offhook.store.endpoints import StoredEndpoints
from offhook.tenants import ConfiguredProjects, Endpoints, Project
from offhook.webhooks import signature

INCOMING = "realtime.call.incoming"
BODY = {"name": "one", "url": "https://app.example/", "event_types": [INCOMING]}
DAY_S = 24 * 3600.0
KEEP = {"keep_old_secret_active_for_24_hours": True}


class Wall:
    now = 1_790_000_000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return self.now


class SlowStore:
    """Keeps in the order in which it was asked, after some turns of the loop."""

    def __init__(self):
        self.rows = {}

    async def load(self):
        return list(self.rows.values())

    async def save(self, project_id, endpoint):
        await asyncio.sleep(0.01)
        self.rows[endpoint.id] = (project_id, endpoint)
        return True

    async def delete(self, project_id, endpoint):
        await asyncio.sleep(0.01)
        self.rows.pop(endpoint.id, None)
        return True


@pytest.fixture
def clock():
    return Wall()


def desk_of(store, clock):
    endpoints = Endpoints(ConfiguredProjects([Project("proj_1"), Project("proj_2")]), store)

    async def send(endpoint, event):
        raise AssertionError

    return EndpointDesk(endpoints, send=send, policy=STRANGER, clock=clock, node="u0"), endpoints


async def test_two_changes_at_once_both_count(clock):
    desk, _ = desk_of(store := SlowStore(), clock)
    made = await desk.create("proj_1", BODY)
    await asyncio.gather(
        desk.update("proj_1", made.id, {"name": "two"}),
        desk.rotate_secret("proj_1", made.id, {}),
        desk.update("proj_1", made.id, {"url": "https://other.example/"}),
    )
    found = desk.find("proj_1", made.id)
    assert (found.name, found.url) == ("two", "https://other.example/")
    assert found.secrets != made.secrets
    assert store.rows == {made.id: ("proj_1", found)}


async def test_what_is_deleted_does_not_come_back_by_a_change(clock):
    desk, endpoints = desk_of(store := SlowStore(), clock)
    made = await desk.create("proj_1", BODY)
    _, changed = await asyncio.gather(
        desk.delete("proj_1", made.id),
        desk.update("proj_1", made.id, {"name": "two"}),
        return_exceptions=True,
    )
    assert isinstance(changed, CallError)
    assert changed.status == 404
    assert endpoints.of("proj_1") == []
    assert store.rows == {}


async def test_no_more_than_allowed_are_made_at_once(clock):
    desk, endpoints = desk_of(SlowStore(), clock)
    async with asyncio.timeout(20):
        made = await asyncio.gather(
            *(desk.create("proj_1", BODY) for _ in range(MAX_ENDPOINTS + 5)),
            desk.create("proj_2", BODY),
            return_exceptions=True,
        )
    assert Counter(type(one).__name__ for one in made) == {"WebhookEndpoint": 101, "CallError": 5}
    assert len(endpoints.of("proj_1")) == MAX_ENDPOINTS


def verifies(endpoint, clock, secret):
    """Whether the openai package takes what the endpoint is sent at this time for genuine."""
    body = b'{"object":"event","id":"evt_1","type":"realtime.call.incoming","created_at":1,"data":{}}'
    now = int(time.time())  # the package compares with its own clock
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature.sign(
            endpoint.secrets_at(clock.now), webhook_id="evt_1", timestamp=now, body=body
        ),
    }
    with OpenAI(api_key="sk-test", webhook_secret=secret) as client:
        try:
            client.webhooks.unwrap(body, headers)
        except ValueError:
            return False
        return True


async def test_each_old_secret_signs_for_its_own_day(clock, tmp_path):
    """An SDK that repeats a rotation whose answer was lost must not end the secret that the app still knows."""
    opened = await Database.open("sqlite", tmp_path)
    try:
        desk, _ = desk_of(StoredEndpoints(opened), clock)
        made = await desk.create("proj_1", BODY)
        first = made.secrets[0]
        second = (await desk.rotate_secret("proj_1", made.id, KEEP)).secrets[0]
        clock.now += DAY_S / 2
        third = (await desk.rotate_secret("proj_1", made.id, KEEP)).secrets[0]
        _, endpoints = desk_of(StoredEndpoints(opened), clock)  # as another process finds it
        await endpoints.load()
        found = endpoints.find("proj_1", made.id)

        def signs():
            return [verifies(found, clock, secret) for secret in (first, second, third)]

        assert signs() == [True, True, True]
        clock.now += DAY_S / 2 - 1
        assert signs() == [True, True, True]
        clock.now += 1
        assert signs() == [False, True, True]
        clock.now += DAY_S / 2
        assert signs() == [False, False, True]
    finally:
        await opened.close()


async def test_a_rotation_that_keeps_nothing_ends_all_old_ones_now(clock):
    desk, _ = desk_of(SlowStore(), clock)
    made = await desk.create("proj_1", BODY)
    await desk.rotate_secret("proj_1", made.id, KEEP)
    last = await desk.rotate_secret("proj_1", made.id, {})
    assert last.secrets_at(clock.now) == last.secrets
    assert len(last.secrets) == 1


async def test_rotations_without_end_do_not_grow_the_signature_without_end(clock):
    desk, _ = desk_of(SlowStore(), clock)
    made = await desk.create("proj_1", BODY)
    for _ in range(20):
        last = await desk.rotate_secret("proj_1", made.id, KEEP)
    assert len(last.secrets_at(clock.now)) == 5


async def test_an_older_database_keeps_its_old_secret(tmp_path, clock):
    config = Config()
    engine = create_engine(f"sqlite:///{tmp_path / 'offhook.db'}")
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO webhook_endpoints (id, project_id, name, url, event_types, secret, old_secret, "
                "old_secret_until, created_at, updated_at) VALUES "
                "('wh_1', 'proj_1', 'a', 'https://a.example/', '[]', 'new', 'old', 1790000100.5, 1, 1), "
                "('wh_2', 'proj_1', 'b', 'https://b.example/', '[]', 'only', NULL, NULL, 2, 2)"
            )
        )
    engine.dispose()
    opened = await Database.open("sqlite", tmp_path)
    try:
        _, endpoints = desk_of(StoredEndpoints(opened), clock)
        await endpoints.load()
        rotated, plain = endpoints.of("proj_1")
    finally:
        await opened.close()
    assert rotated.secrets_at(1_790_000_100.0) == ("new", "old")
    assert rotated.secrets_at(1_790_000_100.5) == ("new",)
    assert plain.secrets_at(clock.now) == ("only",)
