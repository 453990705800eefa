"""One app, one base URL: calls of this node and calls of another service, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from testbed import DeveloperApp, Node, Phone, Sideband
from testbed.hosted import HostedApi
from testbed.script import SCRIPT

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-hosted-8Zq31-passthrough"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosted() -> AsyncIterator[HostedApi]:
    async with HostedApi(key=KEY) as api:
        yield api


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A second node, whose calls are not the first one's."""
    with Node(tmp_path_factory.mktemp("other-node"), script=SCRIPT) as running:
        yield running


@pytest.fixture(scope="module")
def relaying_node(tmp_path_factory: pytest.TempPathFactory, hosted: HostedApi, other: Node) -> Iterator[Node]:
    """A node whose first two projects have the hosted service behind them, and its third the second node."""
    folder = tmp_path_factory.mktemp("relaying-node")
    engine = f"""
        kind = "scripted"
        [upstreams.hosted]
        url = "{hosted.url}"
        api_key_env = "TEST_HOSTED_KEY"
        [upstreams.other]
        url = "{other.https_base_url}"
        ca_file = {json.dumps(str(other.ca))}
        kind = "offhook"
        api_key_env = "TEST_OTHER_KEY"
        [models]
        "their-model" = ["hosted"]
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_HOSTED_KEY", KEY)
        patch.setenv("TEST_OTHER_KEY", other.seats[0].api_key)
        patch.setenv("OFFHOOK_SERVER__NODE", "phone1")
        patch.setenv("OFFHOOK_SERVER__PASSTHROUGH", "hosted")
        node = Node(folder, engine=engine, seats=3, ring_timeout_s=30)
        config = folder / "offhook.toml"
        third = f'id = "{node.seats[2].project}"'
        config.write_text(config.read_text().replace(third, f'{third}\npassthrough = "other"'))
        with node as running:
            yield running
    said = running.log_path.read_text() + (folder / "stdout").read_text()
    assert "call.relay" in said
    assert KEY not in said
    assert other.seats[0].api_key not in said


async def _explain(node: Node, key: str, *command: str) -> str:
    url = node.base_url.removesuffix("/v1")
    return subprocess.run(
        [sys.executable, "-m", "offhook", *command, "--url", url, "--key", key],
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout


async def test_a_hosted_and_an_own_call_in_one_app(relaying_node: Node, hosted: HostedApi) -> None:
    async with DeveloperApp(relaying_node) as app, Phone(relaying_node) as phone:
        own = await phone.dial(app.seat.project)
        own_id, theirs = (await app.incoming()).call_id, hosted.ring()
        assert own_id.startswith("rtc_phone1_")
        calls = app.client.realtime.calls
        session: dict[str, Any] = {
            "instructions": "Screen the call.",
            "audio": {"output": {"voice": "cedar"}},
        }
        for call_id in (own_id, theirs.id):
            await app.accept(call_id, **session)
        await own.answered()
        assert theirs.accepted == {"type": "realtime", "model": "gpt-realtime", **session}

        async with Sideband(app.client, own_id) as mine, Sideband(app.client, theirs.id) as relayed:
            await mine.wait_for("session.created")
            created = await relayed.wait_for("session.created")
            assert created["session"]["id"] == "sess_hosted"
            upstream = await hosted.opened()
            await relayed.connection.response.create(response={"instructions": "Greet."})
            await upstream.until(lambda: upstream.received, "response.create")
            asked = json.loads(upstream.received[0])
            assert asked == {"type": "response.create", "response": {"instructions": "Greet."}}
            event = await upstream.say("rate_limits.updated", rate_limits=[])
            assert (await relayed.wait_for("rate_limits.updated"))["event_id"] == event["event_id"]

            await calls.refer(theirs.id, target_uri="tel:+15551234567")
            assert theirs.referred == ["tel:+15551234567"]
            await calls.hangup(theirs.id)
            await upstream.close(1000, "call ended")
            assert await relayed.wait_closed() == (1000, "call ended")

            assert own.alive
            await calls.hangup(own_id)
            assert (await own.ended()).cause == "remote_bye"

        with pytest.raises(openai.NotFoundError) as raised:
            await calls.hangup(theirs.id)
        assert raised.value.code == "call_id_not_found"

        shown = await relaying_node.describe(app.seat, theirs.id)
        assert (shown["hosted"], shown["upstream"], shown["state"]) == (True, "hosted", "referred")
        assert shown["events"]["received"] == {"session.created": 1, "rate_limits.updated": 1}
        listed = (await relaying_node.get(app.seat, "/realtime/calls"))["data"]
        assert {one["id"]: one.get("hosted", False) for one in listed} == {own_id: False, theirs.id: True}
        verbs = [
            (entry["verb"], entry["status"])
            for entry in await relaying_node.timeline(app.seat, theirs.id)
            if entry["kind"] == "rest"
        ]
        assert verbs == [("accept", 200), ("refer", 200), ("hangup", 200), ("hangup", 404)]

        story = await _explain(relaying_node, app.seat.api_key, "explain", theirs.id)
        assert "upstream" in story
        assert "POST refer: 200 in" in story
        assert "sideband: attached" in story
        assert theirs.id in await _explain(relaying_node, app.seat.api_key, "calls")
        assert KEY not in story + json.dumps(shown)


async def test_the_call_of_another_project_is_nobody_elses_affair(
    relaying_node: Node, hosted: HostedApi
) -> None:
    seat = relaying_node.seats[0]
    async with DeveloperApp(relaying_node, relaying_node.seats[1]) as app, Phone(relaying_node) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        before = len(hosted.requests)
        stranger = app.client.with_options(api_key=seat.api_key)
        with pytest.raises(openai.NotFoundError):
            await stranger.realtime.calls.hangup(call_id)
        await app.client.realtime.calls.reject(call_id)
        assert (await call.refused()).status == 603
        with pytest.raises(openai.NotFoundError):  # over, and ours all the same
            await stranger.realtime.calls.hangup(call_id)
        assert len(hosted.requests) == before


async def test_a_call_of_another_node_is_served_through_this_one(relaying_node: Node, other: Node) -> None:
    async with DeveloperApp(other, other.seats[0]) as there, Phone(other) as phone:
        call = await phone.dial(there.seat.project)
        call_id = (await there.incoming()).call_id
        async with DeveloperApp(relaying_node, relaying_node.seats[2], listening=False) as here:
            await here.accept(call_id)
            await call.answered()
            async with Sideband(here.client, call_id) as sideband:
                await sideband.wait_for("session.created")
                await sideband.connection.response.create()
                done = await sideband.wait_for("response.done")
                assert done["response"]["status"] == "completed"
                await sideband.wait_for("output_audio_buffer.stopped")
                await here.client.realtime.calls.hangup(call_id)
                assert (await call.ended()).cause == "remote_bye"
                assert (await sideband.wait_closed())[0] == 1000
            shown = await relaying_node.describe(here.seat, call_id)
            assert (shown["upstream"], shown["state"]) == ("other", "ended")
            said = [
                entry["title"]
                for entry in await relaying_node.timeline(here.seat, call_id)
                if entry["kind"] == "said"
            ]
            assert said


async def test_a_session_without_a_call_is_the_upstreams_where_its_model_is(
    relaying_node: Node, hosted: HostedApi
) -> None:
    async with DeveloperApp(relaying_node, relaying_node.seats[1], listening=False) as app:
        async with app.client.realtime.connect(model="their-model") as connection:
            assert (await connection.recv()).session.id == "sess_hosted"
            assert (await hosted.opened()).request.query == [("model", "their-model")]
        async with app.client.realtime.connect(model="gpt-realtime") as connection:
            assert (await connection.recv()).session.id != "sess_hosted"
